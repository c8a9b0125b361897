"""Decoupled Mixup, appendix: transfer with few labels by Self-Tuning, of which no table is printed."""

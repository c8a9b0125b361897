"""Decoupled Mixup, appendix: semi-supervised learning, of which no table is printed."""

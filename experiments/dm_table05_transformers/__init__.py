"""Decoupled Mixup Table A5: MCE and DM(CE) on transformers."""

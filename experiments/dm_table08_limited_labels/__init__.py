"""Decoupled Mixup Table A8: limited labels."""

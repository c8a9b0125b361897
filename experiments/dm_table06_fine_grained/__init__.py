"""Decoupled Mixup Table A6: fine-grained sets."""

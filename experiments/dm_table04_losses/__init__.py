"""Decoupled Mixup Table A4: softmax and sigmoid losses, ordinary and decoupled."""

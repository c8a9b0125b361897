"""Decoupled Mixup Table A7: accuracy and error under FGSM."""

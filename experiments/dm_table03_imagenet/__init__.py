"""Decoupled Mixup Table A3: ResNets under the plain ImageNet recipe."""

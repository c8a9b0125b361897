"""Decoupled Mixup Table A2: MCE and DM(CE) on CIFAR-100 and Tiny-ImageNet."""

"""The scales, one file each: mini (a laptop), lab (one GPU, CIFAR-100), paper (a cluster, ImageNet)."""

"""The engine of lumix, on timm and torch.distributed: configuration, data, models, training loop, run directories."""

from training import parts as parts  # whose classes a run's JSON names

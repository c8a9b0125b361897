"""The engine of lumix, on timm and torch.distributed: configuration, data, models, training loop, run directories."""

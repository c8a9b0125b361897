"""A table of ours: LUMix and Decoupled Mixup together."""

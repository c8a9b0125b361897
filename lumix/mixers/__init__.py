"""Image space: one mixing method a file, each called as (images, labels, generator, model=None) -> MixedBatch."""

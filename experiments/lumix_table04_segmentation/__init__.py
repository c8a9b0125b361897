"""LUMix Table 4: semantic segmentation."""

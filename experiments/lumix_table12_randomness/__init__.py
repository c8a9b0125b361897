"""LUMix Table 12: more randomness, in the image and in the ratio."""

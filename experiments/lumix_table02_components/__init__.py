"""LUMix Table 2: which component of LUMix helps."""

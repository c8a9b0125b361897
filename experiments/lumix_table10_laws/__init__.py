"""LUMix Table 10: the law of the random ratio."""

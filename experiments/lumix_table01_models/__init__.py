"""LUMix Table 1: eleven models with and without LUMix."""

"""LUMix Table 5: masks and boxes from the attention of a classifier."""

"""LUMix Table 3: the weights of the random and of the predicted ratio."""

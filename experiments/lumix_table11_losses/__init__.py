"""LUMix Table 11: softmax cross entropy and binary cross entropy."""

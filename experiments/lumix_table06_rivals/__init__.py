"""LUMix Table 6: mixing methods compared by accuracy, speed and generality."""

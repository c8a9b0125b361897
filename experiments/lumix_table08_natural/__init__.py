"""LUMix Table 8: natural adversarial images and unknown classes."""

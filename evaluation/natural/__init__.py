"""Natural adversarial images and unknown classes (LUMix Table 8)."""

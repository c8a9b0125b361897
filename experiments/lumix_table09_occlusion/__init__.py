"""LUMix Table 9: robustness to dropped patches."""

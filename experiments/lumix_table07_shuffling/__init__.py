"""LUMix Table 7: robustness to shuffled patches."""

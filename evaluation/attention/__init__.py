"""Class attention as a map: masks and boxes of the object from it (LUMix Table 5)."""

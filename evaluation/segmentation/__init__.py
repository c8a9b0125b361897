"""Downstream training of LUMix Table 4: a decoder on the pre-trained network of a run, and its mIoU."""

"""Downstream training of Table 4: a decoder on the pre-trained network of a run, and its mIoU. Recipes load no torch."""

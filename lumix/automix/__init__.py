"""Mixers that learn: AutoMix and SAMix (Liu et al. 2022) train a generator of masks beside the network."""

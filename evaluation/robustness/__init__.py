"""Accuracy on corrupted, attacked and mixed test images (LUMix Tables 7 and 9, Decoupled Mixup)."""

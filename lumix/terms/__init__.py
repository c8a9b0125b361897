"""Loss terms, one a file: each gives a value per sample, and `lumix.MixLoss` adds them up."""

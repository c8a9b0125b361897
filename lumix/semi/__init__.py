"""Semi-supervised learning: losses and modules for labelled and unlabelled images; torch alone."""

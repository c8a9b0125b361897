"""Ways of training: on mixed images, with learned masks, with unlabelled images."""

"""What a trained model gets afterwards: a context prior, a residual layer, networks that were trained on."""

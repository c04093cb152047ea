"""What a trained model gets afterwards: a context prior, a refinement, networks that were trained on."""

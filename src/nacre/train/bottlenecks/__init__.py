"""Kinds of latents in training: the torch twins of nacre.quantise, one file for each."""

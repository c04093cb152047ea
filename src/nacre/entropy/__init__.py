"""Whole numbers to bits: priors, residual layer, range coder."""

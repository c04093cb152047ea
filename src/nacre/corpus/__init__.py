"""Whole corpora to files, latents, tokens and features in shards, and shards to arrays for training."""

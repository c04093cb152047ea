"""A model folder, and what is loaded from it."""

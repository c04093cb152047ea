"""Files, pipes and arrays on disk."""

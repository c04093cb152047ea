"""Signal processing on numpy arrays; what has memory takes it and gives it back."""

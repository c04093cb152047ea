"""Many files: which they are, names of their outputs, work in parallel, and the results."""

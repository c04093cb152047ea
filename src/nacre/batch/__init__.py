"""Many files: which they are, what their outputs are called, how they are worked on side by side, what came of it."""

"""Bytes alone: what stands in a file, and in which order."""

"""Evaluation: real bytes, quality and speed of nacre and of other codecs, in one table and one page."""

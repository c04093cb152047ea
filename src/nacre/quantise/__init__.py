"""Latents to whole numbers and back, one file for each kind of latents."""

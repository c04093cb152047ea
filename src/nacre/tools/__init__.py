"""More uses of sound than coding it. None of these imports another, but for `html`, which makes pages."""

"""Music and sound of every kind at 48 kHz: a lapped transform, integer contexts and noise; for files alone."""

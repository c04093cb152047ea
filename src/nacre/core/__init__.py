"""What every other package may use: errors, units, kinds, types of arrays, settings."""

"""Files, pipes and arrays on disk; what is in sound files, how broken ones are read, how new ones appear whole."""

"""Networks of the codec, and the fixed transforms around them, in torch."""

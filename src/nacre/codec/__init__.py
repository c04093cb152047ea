"""The only encoder and the only decoder, and what is built of them."""

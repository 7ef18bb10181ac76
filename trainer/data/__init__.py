"""Training sequences and problems."""

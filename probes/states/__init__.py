"""Hidden states: positions, extraction and alignment."""

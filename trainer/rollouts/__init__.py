"""Sample responses and score them."""

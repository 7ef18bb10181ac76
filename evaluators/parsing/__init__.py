"""Read an answer's text into an expression tree."""

"""The training loops and what they save."""

"""Decide whether a response's answer is right: a math verifier and reward library."""

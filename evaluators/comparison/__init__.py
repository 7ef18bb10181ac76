"""Decide whether two parsed answers are equal."""

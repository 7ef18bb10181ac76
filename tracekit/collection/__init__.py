"""Collect traces from a teacher."""

"""Curate and verify reasoning traces for training."""

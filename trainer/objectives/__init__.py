"""Losses and advantages."""

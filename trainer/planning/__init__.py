"""Estimate what a run would take."""

"""Analyse response text: segments, features, duplicates and contamination."""

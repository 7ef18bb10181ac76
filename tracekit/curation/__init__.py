"""Verify, filter, deduplicate, select and export traces."""

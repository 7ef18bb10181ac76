"""Statistics on predictions grouped by problem."""

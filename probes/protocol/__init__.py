"""The probing protocol: features, cells, effects and the run that joins them."""

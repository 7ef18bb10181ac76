"""The probing report and its figures."""

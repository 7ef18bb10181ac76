"""Statistics and claims of a study."""

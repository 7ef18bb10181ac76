"""The whole experiment: one base, several ways to train it, the same measurements on each, one report."""

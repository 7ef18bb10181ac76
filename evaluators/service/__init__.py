"""The verifier as a local service, a judge for what it leaves undecided, and attacks on a data set's golds."""

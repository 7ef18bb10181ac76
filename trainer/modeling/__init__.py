"""Models, log-probabilities and kernels."""

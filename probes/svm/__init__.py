"""Batched kernel SVM and least-squares solvers."""

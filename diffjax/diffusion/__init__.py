"""The mathematics: schedules, predictions, weights, processes, losses, guidance, solvers, likelihood.

Imports jax, numpy and jaxtyping, nothing else.
"""

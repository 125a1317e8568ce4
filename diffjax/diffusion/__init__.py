"""The mathematics: schedules, predictions, weights, processes, losses, guidance, solvers, analytic worlds.

Imports jax, numpy and jaxtyping, nothing else.
"""

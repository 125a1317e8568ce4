"""The exact test-bed: worlds whose denoisers are known in closed form, and a judge of solvers in them.

    analytic   Gaussians, mixtures, points, data sets          chains   sequences of tokens
    worlds     those of the command, by name                   judge    distances to the exact law, and orders

The command is `python -m diffjax.testbed`.
"""

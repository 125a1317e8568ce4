"""How much of each of two sets lies near the other, by balls that reach to the k-th nearest neighbour within a set.

    precision   share of samples in a ball around some reference row                   Kynkaanniemi et al. 2019, eq. 1-2
    recall      share of reference rows in a ball around some sample
    density     balls around reference rows that a sample is in, on average, over k     Naeem et al. 2020, eq. 4
    coverage    share of the balls around reference rows in which there is a sample     Naeem et al. 2020, eq. 5

All depend on the numbers of rows: compare only figures of the same ones.  No matrix of all pairs is held.  `near` are
the distances of the rows of y to their nearest others (neighbours.others), which several of these share.
"""

import numpy as np
from jaxtyping import Float

from .neighbours import chunks, squares


def precision(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], near: Float[np.ndarray, "m K"], *, k: int = 3
) -> float:
    """Of samples x beside a reference y; the other way around it is recall."""
    return float(np.mean(np.concatenate([within.any(axis=1) for within in _within(x, y, near[:, k - 1])])))


def density(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], near: Float[np.ndarray, "m K"], *, k: int = 5
) -> float:
    """Of samples x beside a reference y; 1 for equal laws, more where samples crowd among the reference."""
    return sum(np.count_nonzero(within) for within in _within(x, y, near[:, k - 1])) / (k * len(x))


def coverage(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], near: Float[np.ndarray, "m K"], *, k: int = 5
) -> float:
    """Of samples x beside a reference y."""
    return float(np.mean(np.any([within.any(axis=0) for within in _within(x, y, near[:, k - 1])], axis=0)))


def _within(x: np.ndarray, y: np.ndarray, reach: np.ndarray):
    """Which balls around rows of y, with these radii, each row of x lies in: bool [some of n, m] at a time."""
    centre = y.mean(0, dtype=np.float64)
    y, limit = y - centre, np.square(reach)
    return (squares(x[some] - centre, y) <= limit for some in chunks(len(x), len(y)))

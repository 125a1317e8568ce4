"""How much of each of two sets lies near the other, by balls that reach to the k-th nearest neighbour within a set.

    precision   share of samples in a ball around some reference row                   Kynkaanniemi et al. 2019, eq. 1-2
    recall      share of reference rows in a ball around some sample
    density     balls around reference rows that a sample is in, on average, over k     Naeem et al. 2020, eq. 4
    coverage    share of the balls around reference rows in which there is a sample     Naeem et al. 2020, eq. 5

All depend on the numbers of rows: compare only figures of the same ones.  No matrix of all pairs is held.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from .neighbours import chunks, nearest, squares


def radii(x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, "n"]:
    """The distance of every row to its k-th nearest other; raises InputError for k rows or fewer."""
    return nearest(x, [x], k=k + 1)[0][:, k]


def balls_around(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], reach: Float[np.ndarray, "m"]
) -> Int[np.ndarray, "n"]:
    """In how many balls around rows of y, with these radii, each row of x lies."""
    return np.concatenate([np.count_nonzero(within, axis=1) for within in _within(x, y, reach)])


def met(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], reach: Float[np.ndarray, "m"]
) -> Bool[np.ndarray, "m"]:
    """Whether there is a row of x in the ball around each row of y."""
    return np.any([within.any(axis=0) for within in _within(x, y, reach)], axis=0)


def _within(x: np.ndarray, y: np.ndarray, reach: np.ndarray):
    centre = y.mean(0, dtype=np.float64)
    y, limit = y - centre, np.square(reach)
    return (squares(x[some] - centre, y) <= limit for some in chunks(len(x), len(y)))


def precision(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], *, k: int = 3) -> float:
    """Of samples x beside a reference y."""
    return float(np.mean(balls_around(x, y, radii(y, k)) > 0))


def recall(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], *, k: int = 3) -> float:
    """Of samples x beside a reference y."""
    return precision(y, x, k=k)


def density(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], *, k: int = 5) -> float:
    """Of samples x beside a reference y; 1 for equal laws, more where samples crowd among the reference."""
    return float(np.mean(balls_around(x, y, radii(y, k))) / k)


def coverage(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], *, k: int = 5) -> float:
    """Of samples x beside a reference y."""
    return float(np.mean(met(x, y, radii(y, k))))

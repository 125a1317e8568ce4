"""Nearest neighbours of queries in a set that arrives in batches, in memory that does not depend on the set.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y        in float64, about the mean of the queries, by products of matrices

Whether samples were memorised: their distances to the nearest training example, over those that held-out examples have
(Meehan et al. 2020): about 1 for samples that are as new as held-out ones, near 0 for copies.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int

from diffjax.errors import InputError

PAIRS = 2**21  # of rows that are looked at together: 16 MiB in float64


def chunks(n: int, m: int) -> Iterator[slice]:
    """Slices of n rows, each of which makes at most PAIRS pairs with m rows."""
    size = max(PAIRS // max(m, 1), 1)
    return (slice(start, start + size) for start in range(0, n, size))


def squares(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Squared distances of float64 rows."""
    pairs = x @ y.T
    pairs *= -2
    pairs += np.einsum("nd,nd->n", x, x)[:, None]
    pairs += np.einsum("md,md->m", y, y)
    return np.maximum(pairs, 0, out=pairs)


def nearest(
    queries: Float[np.ndarray, "q d"], batches: Iterable[Float[np.ndarray, "b d"]], *, k: int = 1
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Distances to the k nearest of all rows of the batches, the nearest first, and the numbers of those rows.

    Raises InputError where there are fewer than k rows.
    """
    centre = queries.mean(0, dtype=np.float64)
    q = queries - centre
    best, which, seen = np.full((len(q), k), np.inf), np.zeros((len(q), k), int), 0
    for batch in batches:
        for part in chunks(len(batch), min(len(q), 1024)):
            y = batch[part] - centre
            for some in chunks(len(q), len(y)):
                found = np.concatenate([best[some], squares(q[some], y)], axis=1)
                least = np.argpartition(found, k - 1, axis=1)[:, :k]
                best[some] = np.take_along_axis(found, least, axis=1)
                old = np.take_along_axis(which[some], np.minimum(least, k - 1), axis=1)
                which[some] = np.where(least < k, old, least - k + seen)
            seen += len(y)
    if seen < k:
        raise InputError(f"{k} nearest neighbours among {seen} rows; give at least {k}")
    order = np.argsort(best, axis=1, kind="stable")
    return np.sqrt(np.take_along_axis(best, order, axis=1)), np.take_along_axis(which, order, axis=1)


def others(x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, "n k"]:
    """Distances of every row to its k nearest others, the nearest first; raises InputError for k rows or fewer."""
    return nearest(x, [x], k=k + 1)[0][:, 1:]


def novelty(ours: Float[np.ndarray, "n"], heldout: Float[np.ndarray, "m"]) -> Float[np.ndarray, "n"]:
    """Distances of samples to the nearest training example over the median of held-out examples' distances to theirs.

    Raises InputError where that median is zero: held-out examples are then training examples.
    """
    middle = np.median(heldout)
    if not middle > 0:
        raise InputError("at least half of the held-out examples are training examples too; give others")
    return ours / middle

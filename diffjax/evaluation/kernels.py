"""The maximum mean discrepancy between two sets, without bias, and its mean over blocks.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)        pairs of different rows         Gretton et al. 2012, eq. 3
    KID   = mean over blocks of MMD^2 with k = (x.y / d + 1)^3                           Binkowski et al. 2018, sec. 4
    k = exp(-|x - y|^2 / 2 s^2)                          s: the median distance          Gretton et al. 2012, sec. 8
    k = -|x - y|                                         the squared energy distance     Sejdinovic et al. 2013

Without bias, so between equal laws it is negative half of the time.  Blocks cost n, not n^2; the mean over blocks has
the same expectation as the MMD^2 of all, and a larger variance.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from diffjax.errors import InputError

from .neighbours import chunks, squares

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]  # [n, d], [m, d] -> [n, m]
BLOCK = 1000  # rows, as in the paper


class Estimate(NamedTuple):
    value: float
    error: float  # its standard error; nan from one block


def polynomial(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """KID's kernel."""
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    return base * base * base  # ten times faster than a power


def gaussian(scale: float) -> Kernel:
    """RBF, of the standard deviation `scale`."""
    return lambda x, y: np.exp(squares(x, y) / (-2 * scale**2))


def distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """The energy distance's kernel, which is only conditionally positive: enough for an MMD."""
    return -np.sqrt(squares(x, y))


def median(y: Float[np.ndarray, "m d"]) -> float:
    """The median distance between different rows, of the first thousand."""
    y = y[:BLOCK].astype(np.float64)
    return float(np.sqrt(np.median(squares(y, y)[np.triu_indices(len(y), 1)])))


def mmd2(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], kernel: Kernel = polynomial) -> float:
    """The unbiased MMD^2 of all rows; raises InputError for fewer than two of either."""
    if min(len(x), len(y)) < 2:
        raise InputError(f"a discrepancy between {len(x)} and {len(y)} rows; give at least 2 of each")
    x, y = x.astype(np.float64), y.astype(np.float64)
    between = sum(float(kernel(x[some], y).sum()) for some in chunks(len(x), len(y))) / (len(x) * len(y))
    return _within(x, kernel) + _within(y, kernel) - 2 * between


def _within(x: np.ndarray, kernel: Kernel) -> float:
    """The mean over pairs of different rows."""
    pairs = ((kernel(x[some], x), some.start) for some in chunks(len(x), len(x)))
    return sum(float(found.sum() - np.trace(found, start)) for found, start in pairs) / (len(x) * (len(x) - 1))


def over_blocks(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], kernel: Kernel, *, block: int = BLOCK
) -> Estimate:
    """The mean of MMD^2 over blocks of y of at least `block` rows (one block, if there are fewer) and as many of x.

    Only y says how many blocks there are: when a few rows of x are left out the others stay where they were.
    Raises InputError for fewer than two rows a block.
    """
    parts = max(len(y) // block, 1)
    if min(len(x), len(y)) < 2 * parts:
        raise InputError(f"{len(x)} and {len(y)} rows in {parts} blocks; give at least {2 * parts} of each")
    pairs = zip(np.array_split(x, parts), np.array_split(y, parts), strict=True)
    values = [mmd2(*pair, kernel) for pair in pairs]
    error = np.std(values, ddof=1) / np.sqrt(parts) if parts > 1 else np.nan
    return Estimate(float(np.mean(values)), float(error))


def kid(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], *, block: int = BLOCK) -> Estimate:
    """The kernel Inception distance and its standard error."""
    return over_blocks(x, y, polynomial, block=block)

"""The Frechet distance between two Gaussians, and what it would be with infinitely many samples.

    F = |mu - nu|^2 + tr A + tr B - 2 tr (A B)^(1/2)                            Dowson & Landau 1982; Heusel et al. 2017

With factors A = P P^T and B = Q Q^T the last trace is the sum of the singular values of P^T Q, whose squares are the
eigenvalues of the symmetric product B^(1/2) A B^(1/2).  Nothing is inverted and nothing is squared: covariances of any
rank, to rounding.

From n samples F is biased by about b / n; a line through F of subsets against 1 / n ends at F without bias
(Chong & Forsyth 2020, sec. 3).  Here they are all, the two halves and the four quarters, made by merging groups.
"""

import numpy as np
from jaxtyping import Float

from .jackknife import standard_error
from .summary import Moments, merge

PARTS = (1, 2, 4)


def distance(a: Moments, b: Moments) -> float:
    """The squared distance, in squared units of the features; symmetric to the bit, and not negative."""
    a, b = sorted((a, b), key=lambda one: (np.trace(one.covariance), tuple(one.mean)))
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    overlap = np.linalg.svd(_factor(a.covariance).T @ _factor(b.covariance), compute_uv=False).sum()
    return max(float(np.square(a.mean - b.mean).sum() + traces - 2 * overlap), 0.0)


def _factor(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d r"]:
    """P with P P^T = covariance; directions of no variance are left out, for the root would enlarge their rounding."""
    values, vectors = np.linalg.eigh(covariance)
    some = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return vectors[:, some] * np.sqrt(values[some])


def line(groups: Moments, reference: Moments) -> float:
    """F at 1 / n = 0, from groups of samples and the moments of a reference set, which has a bias of its own."""
    subsets = [part for parts in PARTS for part in np.array_split(np.arange(len(groups.count)), parts) if len(part)]
    merged = [merge(Moments(*(field[subset] for field in groups))) for subset in subsets]
    inverse = np.array([1 / one.count for one in merged])
    values = np.array([distance(one, reference) for one in merged])
    gaps = inverse - inverse.mean()
    return float(values.mean() - inverse.mean() * (gaps @ values) / (gaps @ gaps))


def extrapolate(groups: Moments, reference: Moments) -> tuple[float, float]:
    """F at 1 / n = 0 and its standard error, by leaving out one group at a time.

    The residuals of the line would say too little: what chance does to all samples it does to all of the subsets.
    """
    rest = [np.arange(len(groups.count)) != g for g in range(len(groups.count))]
    left_out = [line(Moments(*(field[some] for field in groups)), reference) for some in rest]
    return line(groups, reference), standard_error(left_out)

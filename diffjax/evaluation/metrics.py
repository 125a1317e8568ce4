"""Metrics of samples beside a reference, as a table: (summary, reference) -> a number.

`frechet`, `frechet_infinity` and `inception_score` are of all samples; the others of the rows that the summaries kept.
Which features the summaries are of, a network's or pixels, is the caller's to say beside the number.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError

from . import distances, kernels, manifold
from .frechet import distance, line
from .inception_score import score
from .summary import Summary


def frechet(summary: Summary, reference: Summary) -> float:
    """Frechet distance between Gaussians, squared units of the features; smaller is better.  Heusel et al. 2017.

    FID, on Inception's features.  From n <= d samples it is dominated by its bias: see `caveats`.
    """
    _enough("frechet", 2, summary, reference, summary.count, reference.count)
    return distance(summary.whole, reference.whole)


def frechet_infinity(summary: Summary, reference: Summary) -> float:
    """The same for infinitely many samples, squared units of the features; smaller is better.  Chong & Forsyth 2020."""
    _enough("frechet_infinity", 2, summary, reference, summary.count, reference.count)
    groups = summary.moments
    if len(groups.count) < 4 or groups.count.min() < 1 or groups.count.sum() < 8:
        raise InputError(
            f"frechet_infinity from {summary.count} samples in {len(groups.count)} groups; need 8 in 4, none empty"
        )
    return line(groups, reference.whole)


def kid(summary: Summary, reference: Summary) -> float:
    """Kernel Inception distance, without a unit; smaller is better, negative by chance.  Binkowski et al. 2018."""
    x, y = _rows("kid", 2, summary, reference)
    return kernels.kid(x, y).value


def mmd(summary: Summary, reference: Summary) -> float:
    """Squared MMD, Gaussian kernel as wide as the reference's median distance, no unit; smaller is better.

    Gretton et al. 2012; over blocks as `kid`.
    """
    x, y = _rows("mmd", 2, summary, reference)
    scale = kernels.median(y)
    if not scale > 0:
        raise InputError("mmd beside a reference most of whose rows are equal; give one of different rows")
    return kernels.over_blocks(x, y, kernels.gaussian(scale)).value


def energy(summary: Summary, reference: Summary) -> float:
    """Energy distance, units of the features; smaller is better.  Szekely & Rizzo 2013.

    Unbiased in its square, unlike `distances.energy`: the root of a mean over blocks, as `kid`, at least 0.
    """
    x, y = _rows("energy", 2, summary, reference)
    squared = kernels.over_blocks(x, y, kernels.distance).value
    return float(np.sqrt(max(squared, 0)))


def sliced_wasserstein(summary: Summary, reference: Summary) -> float:
    """Wasserstein distance W_2 over 64 directions, units of the features; smaller is better.  Bonneel et al. 2015."""
    x, y = _rows("sliced_wasserstein", 1, summary, reference)
    return float(distances.sliced_wasserstein(jnp.asarray(x), jnp.asarray(y)))


def precision(summary: Summary, reference: Summary) -> float:
    """Share of samples among the reference, k = 3; larger is better.  Kynkaanniemi et al. 2019."""
    x, y = _rows("precision", 4, summary, reference)
    return manifold.precision(x, y, reference.near)


def recall(summary: Summary, reference: Summary) -> float:
    """Share of the reference among samples, k = 3; larger is better.  Kynkaanniemi et al. 2019."""
    x, y = _rows("recall", 4, summary, reference)
    return manifold.precision(y, x, summary.near)


def density(summary: Summary, reference: Summary) -> float:
    """Samples among the reference, with multiplicity, k = 5; larger is better, 1 for equal laws.  Naeem et al. 2020."""
    x, y = _rows("density", 6, summary, reference)
    return manifold.density(x, y, reference.near)


def coverage(summary: Summary, reference: Summary) -> float:
    """Share of the reference with a sample nearby, k = 5; larger is better.  Naeem et al. 2020."""
    x, y = _rows("coverage", 6, summary, reference)
    return manifold.coverage(x, y, reference.near)


def inception_score(summary: Summary, reference: Summary) -> float:
    """Inception score, 1 to the number of classes; larger is better.  Salimans et al. 2016.  Ignores the reference."""
    if summary.classes is None:
        raise InputError("inception_score without class probabilities; summarise samples with a network that has them")
    groups = summary.moments.count
    if groups.min() < 1:
        raise InputError(f"inception_score of {summary.count} samples in {len(groups)} groups; need one in each")
    return score(summary.classes, groups).value


METRICS: dict[str, Callable[[Summary, Summary], float]] = {
    "frechet": frechet,
    "frechet_infinity": frechet_infinity,
    "kid": kid,
    "mmd": mmd,
    "energy": energy,
    "sliced_wasserstein": sliced_wasserstein,
    "precision": precision,
    "recall": recall,
    "density": density,
    "coverage": coverage,
    "inception_score": inception_score,
}


def caveats(summary: Summary, reference: Summary) -> list[str]:
    """What should stand beside the numbers, in sentences."""
    found = []
    for name, one in {"samples": summary, "reference": reference}.items():
        d = one.rows.shape[1]
        if one.count <= d:
            found.append(f"frechet: {one.count} rows of {d} features ({name}) leave it singular and biased")
        if len(one.rows) < one.count:
            found.append(f"metrics of rows: {len(one.rows)} of {one.count} rows ({name}), chosen at random")
    return found


def _rows(metric: str, needed: int, summary: Summary, reference: Summary) -> tuple[np.ndarray, np.ndarray]:
    """The rows that were kept, if there are enough."""
    x, y = summary.rows, reference.rows
    _enough(metric, needed, summary, reference, len(x), len(y))
    return x, y


def _enough(metric: str, needed: int, summary: Summary, reference: Summary, n: int, m: int) -> None:
    """Raises InputError for features of different widths, and for n samples or m reference rows that are too few."""
    widths = summary.rows.shape[1], reference.rows.shape[1]
    if len(set(widths)) > 1:
        raise InputError(f"{widths[0]} features beside a reference of {widths[1]}; summarise both with one network")
    if min(n, m) < needed:
        raise InputError(f"{metric} of {n} samples and {m} reference rows; need at least {needed} of each")

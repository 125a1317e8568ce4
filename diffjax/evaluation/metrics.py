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
    _enough("frechet", summary, reference, needed=2)
    return distance(summary.whole, reference.whole)


def frechet_infinity(summary: Summary, reference: Summary) -> float:
    """The same for infinitely many samples, squared units of the features; smaller is better.  Chong & Forsyth 2020."""
    _enough("frechet_infinity", summary, reference, needed=2)
    groups = summary.moments
    if len(groups.count) < 4 or groups.count.min() < 1 or groups.count.sum() < 8:
        raise InputError(
            f"frechet_infinity from {summary.count} samples in {len(groups.count)} groups; need 8 in 4, none empty"
        )
    return line(groups, reference.whole)


def kid(summary: Summary, reference: Summary) -> float:
    """Kernel Inception distance, without a unit; smaller is better, negative by chance.  Binkowski et al. 2018."""
    _enough("kid", summary, reference, needed=2)
    return kernels.kid(summary.rows, reference.rows).value


def mmd(summary: Summary, reference: Summary) -> float:
    """Squared MMD, Gaussian kernel as wide as the reference's median distance, no unit; smaller is better.

    Gretton et al. 2012; over blocks as `kid`.
    """
    _enough("mmd", summary, reference, needed=2)
    scale = kernels.median(reference.rows)
    if not scale > 0:
        raise InputError("mmd beside a reference most of whose rows are equal; give one of different rows")
    return kernels.over_blocks(summary.rows, reference.rows, kernels.gaussian(scale)).value


def energy(summary: Summary, reference: Summary) -> float:
    """Energy distance, units of the features; smaller is better.  Szekely & Rizzo 2013.

    Unbiased in its square, unlike `distances.energy`: the root of a mean over blocks, as `kid`, at least 0.
    """
    _enough("energy", summary, reference, needed=2)
    squared = kernels.over_blocks(summary.rows, reference.rows, kernels.distance).value
    return float(np.sqrt(max(squared, 0)))


def sliced_wasserstein(summary: Summary, reference: Summary) -> float:
    """Wasserstein distance W_2 over 64 directions, units of the features; smaller is better.  Bonneel et al. 2015."""
    _enough("sliced_wasserstein", summary, reference, needed=1)
    return float(distances.sliced_wasserstein(jnp.asarray(summary.rows), jnp.asarray(reference.rows)))


def precision(summary: Summary, reference: Summary) -> float:
    """Share of samples among the reference, k = 3; larger is better.  Kynkaanniemi et al. 2019."""
    _enough("precision", summary, reference, needed=4)
    return float(np.mean(manifold.balls_around(summary.rows, reference.rows, reference.near[:, 2]) > 0))


def recall(summary: Summary, reference: Summary) -> float:
    """Share of the reference among samples, k = 3; larger is better.  Kynkaanniemi et al. 2019."""
    _enough("recall", summary, reference, needed=4)
    return float(np.mean(manifold.balls_around(reference.rows, summary.rows, summary.near[:, 2]) > 0))


def density(summary: Summary, reference: Summary) -> float:
    """Samples among the reference, with multiplicity, k = 5; larger is better, 1 for equal laws.  Naeem et al. 2020."""
    _enough("density", summary, reference, needed=6)
    return float(np.mean(manifold.balls_around(summary.rows, reference.rows, reference.near[:, 4])) / 5)


def coverage(summary: Summary, reference: Summary) -> float:
    """Share of the reference with a sample nearby, k = 5; larger is better.  Naeem et al. 2020."""
    _enough("coverage", summary, reference, needed=6)
    return float(np.mean(manifold.met(summary.rows, reference.rows, reference.near[:, 4])))


def inception_score(summary: Summary, reference: Summary) -> float:
    """Inception score, 1 to the number of classes; larger is better.  Salimans et al. 2016.  Ignores the reference."""
    if summary.classes is None:
        raise InputError("inception_score without class probabilities; summarise samples with a network that has them")
    return score(summary.classes, summary.moments.count).value


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


def _enough(metric: str, summary: Summary, reference: Summary, *, needed: int) -> None:
    """Raises InputError for features of different widths, and for too few rows."""
    widths = summary.rows.shape[1], reference.rows.shape[1]
    if len(set(widths)) > 1:
        raise InputError(f"{widths[0]} features beside a reference of {widths[1]}; summarise both with one network")
    rows = len(summary.rows), len(reference.rows)
    if min(rows) < needed:
        raise InputError(f"{metric} of {rows[0]} samples and {rows[1]} reference rows; need at least {needed} of each")

"""Distances between two sets of samples, each of which is zero between equal laws, and the floor that chance leaves.

    sliced Wasserstein   the mean over directions u of W_2 between the projections on u            Bonneel et al. 2015
    energy distance      sqrt( 2 E|x - y| - E|x - x'| - E|y - y'| )                               Szekely & Rizzo 2013
    total variation      half the sum of |p - q| over a finite set

Between finite samples of one law they are not zero: `floor` says how large they are by chance alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray


def sliced_wasserstein(x: Float[Array, "N *S"], y: Float[Array, "M *S"], *, directions: int = 64) -> Float[Array, ""]:
    """W_2 over random directions (always the same ones), between the steps that the quantile functions are."""
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    u = jax.random.normal(jax.random.key(0), (x.shape[1], directions), x.dtype)
    u = u / jnp.linalg.norm(u, axis=0, keepdims=True)
    n, m = len(x), len(y)
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # of the steps of either, in units of 1 / (n m)
    share = np.diff(ends, prepend=0) / (n * m)
    at = lambda values, i: values if len(i) == len(values) else values[i]  # noqa: E731  # of equal numbers, as they are
    gaps = at(jnp.sort(x @ u, axis=0), (ends - 1) // m) - at(jnp.sort(y @ u, axis=0), (ends - 1) // n)
    return jnp.mean(jnp.sqrt(jnp.asarray(share, x.dtype) @ jnp.square(gaps)))


def energy(x: Float[Array, "N *S"], y: Float[Array, "M *S"]) -> Float[Array, ""]:
    """The energy distance; of order N M."""
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)

    def mean_gap(a, b):
        one = lambda row: jnp.mean(jnp.linalg.norm(b - row[None], axis=1))  # noqa: E731
        return jnp.mean(jax.lax.map(one, a, batch_size=256))

    return jnp.sqrt(jnp.maximum(2 * mean_gap(x, y) - mean_gap(x, x) - mean_gap(y, y), 0))


DISTANCES = {"sliced_wasserstein": sliced_wasserstein, "energy": energy}


def total_variation(counts: Float[Array, "K"], probabilities: Float[Array, "K"]) -> Float[Array, ""]:
    """Between the frequencies of a finite set's members and their probabilities."""
    return 0.5 * jnp.sum(jnp.abs(counts / jnp.sum(counts) - probabilities))


def floor(
    key: PRNGKeyArray, draw: Callable[[PRNGKeyArray], Any], distance: Callable[[Any, Any], Array], *, repeats: int = 20
) -> tuple[float, float]:
    """(5 %, 95 %) quantiles of the distance between two independent draws of the law itself."""
    one = jax.jit(lambda key: distance(*(draw(k) for k in jax.random.split(key))))
    values = jnp.stack([one(k) for k in jax.random.split(key, repeats)])
    low, high = jnp.quantile(values, jnp.asarray([0.05, 0.95]))
    return float(low), float(high)

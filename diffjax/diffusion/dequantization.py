"""Whole numbers as continuous data: level k in 0 ... levels - 1 is a cell of width w = (high - low) / levels,

    x = low + w (k + u),  0 <= u < 1,        log P(k) = log int_cell p(x) dx >= E_u[log p(x) - log q(x | k)]    (Jensen)

so a density of x bounds the probability of k: with uniform u, q = 1 / w a number (Theis et al. 2016, section 3.1), or
with any other law of u (Ho et al. 2019, section 3.1).  In bits a number, -log2 P(k) <= -log2 p(x) - log2 w: the offset
-log2 w is 7 for 256 levels in [-1, 1], and 0 for cells of width 1.  A reconstruction ends a bound of likelihood.py.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.stats import norm
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from .sampling import row_keys
from .types import Keys


def place(k: Int[Array, "*S"], u: ArrayLike, levels: int, *, low: float = -1.0, high: float = 1.0) -> Array:
    """low + w (k + u): level k from u = 0 to 1, and its centre at 1/2.  Raises ValueError unless 0 <= k < levels."""
    span = (0, 0) if isinstance(k, Tracer) else (np.asarray(k).min(), np.asarray(k).max())
    if not 0 <= span[0] <= span[1] < levels:
        raise ValueError(f"k runs from {span[0]} to {span[1]}, but must lie in 0 to levels - 1 = {levels - 1}")
    return low + (high - low) / levels * (k + jnp.asarray(u))


def uniform(
    key: Keys, k: Int[Array, "B *S"], levels: int, *, low: float = -1.0, high: float = 1.0
) -> tuple[Float[Array, "B *S"], float]:
    """(x0, offset): x0 uniform in the cell of k, and what `bits_per_dim` adds.  key: one, or one per row."""
    u = jax.vmap(lambda key: jax.random.uniform(key, k.shape[1:]))(key if key.ndim else row_keys(key, len(k)))
    return place(k, u, levels, low=low, high=high), math.log2(levels / (high - low))


def variational(
    key: Keys, k: Int[Array, "B *S"], flow: Callable, *, levels: int, low: float = -1.0, high: float = 1.0
) -> tuple[Float[Array, "B *S"], Float[Array, "B"]]:
    """(x0, log q(x0 | k) in nats) by `flow`: (key, k) -> (u, log q(u | k) [B]).  E[log p(x0) - log q] <= log P(k), with
    the cells' width in log q: `bits_per_dim` of the difference takes no offset."""
    u, log_q = flow(key, k)
    return place(k, u, levels, low=low, high=high), log_q - k[0].size * math.log((high - low) / levels)


def gaussian(xt: Array, x0: Array, alpha: Array, sigma: Array) -> Float[Array, "B"]:
    """The reconstruction log N(x0; xt / alpha, sigma^2 / alpha^2): for densities that are smooth over sigma / alpha."""
    return jnp.sum(norm.logpdf(x0, xt / alpha, sigma / alpha).reshape(len(x0), -1), axis=1)


def decoder_nats(levels: int, *, low: float = -1.0, high: float = 1.0) -> Callable:
    """The reconstruction softmax_k log N(xt; alpha x_k, sigma^2), x_k the cells' centres (Kingma 2021, section 3.3)."""

    def reconstruction(xt: Array, x0: Array, alpha: Array, sigma: Array) -> Float[Array, "B"]:
        centres = place(jnp.arange(levels), 0.5, levels, low=low, high=high).astype(x0.dtype)
        log_p = jax.nn.log_softmax(jax.vmap(lambda centre: norm.logpdf(xt, alpha * centre, sigma))(centres), axis=0)
        k = jnp.argmin(jax.vmap(lambda centre: jnp.abs(x0 - centre))(centres), axis=0)[None]
        return jnp.sum(jnp.take_along_axis(log_p, k, axis=0).reshape(len(x0), -1), axis=1)

    return reconstruction


def bits_per_dim(nats: Float[Array, "*B"], dims: int, *, offset: float = 0.0) -> Float[Array, "*B"]:
    """-nats / (dims log 2) + offset, in bits: -log2 of a dequantised number's cell, and 0 for a density itself."""
    return -nats / (dims * math.log(2)) + offset

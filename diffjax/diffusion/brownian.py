"""Brownian paths that solvers and step sizes share, so that the error of a single trajectory can be measured.

Over a step from t to s the reverse SDE of any schedule adds sigma_s sqrt(1 - e^{-2h}) z, h = lambda_s - lambda_t, with

    z = (U(lambda_s) - e^{-h} U(lambda_t)) / sqrt(1 - e^{-2h}),            lambda = log(alpha / sigma),

where U is the stationary Ornstein-Uhlenbeck process of rate 1 in the clock lambda (the time change that turns
dx = [f x - g^2 score] dt + g dW into noise of constant strength; Song et al. 2021, eq. 6).  U is found at any lambda by
descent of a virtual tree of bridges (Levy's construction): with both ends of a cell of width h known, its middle is
N((a + b) / (2 cosh(h / 2)), tanh(h / 2)).  Nothing is stored but the key, and U is the same however it is visited.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .gaussian import REACH, half_log_snr
from .types import Keys, Noise, Schedule, normal, rows

DEPTH = 26  # cells of width 2^-21: below it two times are one


def brownian(key: Keys, schedule: Schedule) -> Noise:
    """A Brownian path for every row, as the `noise` of `sampling.sample`: key: one, or one per row [B].

    (fresh, start, end, like) -> z [B, *S]: standard normal, independent over disjoint intervals of time.  Noise that
    leads from no time to another (a corrector's) is not the path's: it is drawn from the `fresh` keys.
    """

    def noise(fresh, start, end, like):
        low, high = _cell(schedule, start), _cell(schedule, end)
        h = rows((high - low) * (2 * REACH / 2**DEPTH), like).astype(like.dtype)
        innovation = _visit(key, high, like) - jnp.exp(-h) * _visit(key, low, like)
        return jnp.where(h > 0, innovation / jnp.sqrt(-jnp.expm1(-2 * jnp.where(h > 0, h, 1))), normal(fresh, like))

    return noise


def _cell(schedule, t):
    """The number of the tree's cell that holds log(alpha / sigma) at t."""
    return jnp.round((half_log_snr(schedule, t) + REACH) / (2 * REACH) * 2**DEPTH).astype(jnp.int32)


def _visit(key: Keys, cell: Array, like: Float[Array, "B *S"]) -> Float[Array, "B *S"]:
    """U at the lower edge of a cell, for every row: down the tree from the two ends of the clock."""
    keys = key if key.ndim else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(like)))

    def row(key, cell, like):
        at = lambda edge: jax.random.normal(jax.random.fold_in(key, edge), like.shape, like.dtype)  # noqa: E731

        def halve(level, bracket):
            low, a, b = bracket
            width = 2**DEPTH >> level
            h = (width * (2 * REACH / 2**DEPTH)).astype(like.dtype)
            middle = low + width // 2
            centre = (a + b) / (2 * jnp.cosh(h / 2)) + jnp.sqrt(jnp.tanh(h / 2)) * at(middle)
            left = cell < middle
            return jnp.where(left, low, middle), jnp.where(left, a, centre), jnp.where(left, centre, b)

        low, a, b = jax.lax.fori_loop(0, DEPTH, halve, (jnp.int32(0), at(0), at(2**DEPTH)))
        return jnp.where(cell < 2**DEPTH, a, b)

    return jax.vmap(row)(keys, jnp.broadcast_to(cell, len(like)), like)

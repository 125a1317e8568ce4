"""The nouns of the mathematics, with their shapes.

    B batch;  *S data shape, any rank;  t, s in [0, 1]: 0 is data, 1 is noise, and s < t.
    A time is one number for all rows [], one for each row [B], or one for each element (of x's rank, broadcast to x).

    Schedule  t -> (alpha, sigma)                               x_t = alpha x_0 + sigma eps
    Denoise   (x_t, t, cond) -> x0_hat                          the only bridge between networks and mathematics
    Process   a kind of noise: how data is corrupted, what a network sees and means, how noise is undone
    Solver    how to walk along a grid of times with a denoiser: coefficients planned ahead, and one step
    Net       init(key) -> params;  apply(params, x, level, cond, *, key=None) -> raw;  project(params) -> params

A component is a function or one of these small records of functions; nothing here has state.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

Time = Float[Array, "..."]  # [], [B] or one for each element
Keys = Key[Array, "..."]  # one key [], or one for each row [B]
Source = Keys | Callable[[Array], Array]  # where one call's standard normal noise comes from: keys, or like -> z
Noise = Callable[[Keys, Array, Array, Array], Array]  # (fresh keys, start, end, like) -> z of a call between two times
Schedule = Callable[[Array], tuple[Array, Array]]
Denoise = Callable[[Array, Array, Any], Array]
Times = Callable[[Keys, int], Array]
Weight = Callable[[Schedule, Array], Array]


class Coefficients(NamedTuple):
    """What a prediction means: x0_hat = skip x_t + out F(scale x_t, level); four functions of time, each [B]."""

    skip: Array
    out: Array
    scale: Array
    level: Array


Parameterization = Callable[[Schedule, Array], Coefficients]


class Process(NamedTuple):
    """A kind of noise.  Shapes: x0, xt, xs [B, *S]; t, s [B] or []; keys are one key or one per row."""

    schedule: Schedule
    prior: Callable  # (key, like, t) -> x_t                  the marginal at t, up to the data's own share
    corrupt: Callable  # (key, x0, t) -> x_t
    prepare: Callable  # (x_t, t) -> (x_in, level)            what the network sees
    estimate: Callable  # (raw, x_t, t) -> x0_hat             what the network's answer means
    loss: Callable  # (x0, x_t, t, x0_hat) -> [B, *S]         weighted, per element
    reverse: Callable  # (key, x_t, x0_hat, t, s) -> x_s      a draw of q(x_s | x_t, x_0 = x0_hat)


class Plan(NamedTuple):
    """What a solver does along a grid, call by call of the network; leading axis [calls].

    A step from t to s may take several calls, and a solver may go back up: calls need not be the grid's intervals.
    """

    moves: Array  # t > s, of the step that the call belongs to: a call of an empty step changes nothing
    start: Array  # the noise of this call is a Brownian path's between the times start and end; fresh if they are one
    end: Array
    rows: Any  # what the step needs to know: a pytree


class Solver(NamedTuple):
    """A rule for walking along a grid of times: ts [n + 1], or [n + 1, B] for a grid of each row's own.

    plan evaluates what depends on the grid alone, once and for all calls.  step sees one slice of its rows, and makes
    one call of denoise(x, t).  memory is what the rule remembers from one call to the next; () if nothing.
    """

    plan: Callable  # ts -> Plan
    init: Callable  # x -> memory
    step: Callable  # (source of noise, denoise, x, slice_of_rows, memory) -> (x, memory)


def unconstrained(params: Any) -> Any:
    """Parameters that may have any value."""
    return params


class Net(NamedTuple):
    """A network as pure functions; params is a nested dict of arrays.  key is given in training only (dropout).

    project puts params back where they are meant to be, after every update (Karras et al. 2024, section 2.3).
    """

    init: Callable  # key -> params
    apply: Callable  # (params, x, level, cond, *, key=None) -> raw
    project: Callable = unconstrained  # params -> params


def rows(values: ArrayLike, like: Array) -> Array:
    """Give per-row (or scalar) values the rank of `like`, so that they broadcast over its data axes."""
    values = jnp.asarray(values)
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim)) if values.ndim else values


def fold(key: Keys, i: int | Int[Array, ""]) -> Keys:
    """fold_in of one key, or of every row's."""
    return jax.vmap(jax.random.fold_in, (0, None))(key, i) if key.ndim else jax.random.fold_in(key, i)


def normal(noise: Source, like: Float[Array, "B *S"]) -> Float[Array, "B *S"]:
    """Standard normal noise shaped like `like`.  With one key per row, a row's noise does not depend on its batch.

    Values are drawn in a line: the same numbers as in their shape, whose indices cost a CPU more than the noise.
    """
    if callable(noise):
        return noise(like)
    count = math.prod(like.shape[noise.ndim :])
    draw = lambda key: jax.random.normal(key, (count,), like.dtype)  # noqa: E731
    return (jax.vmap(draw)(noise) if noise.ndim else draw(noise)).reshape(like.shape)

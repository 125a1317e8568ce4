"""Grids of sampling times: arrays ts [steps + 1] that fall from start to stop; the last is usually 0, exactly data.

    uniform     even in t
    quadratic   t ~ u^2, u even                                 Song et al. 2021a, appendix D.2
    log_snr     even in lambda = log(alpha^2 / sigma^2)         Lu et al. 2022
    rho         even in (sigma / alpha)^(1 / rho)               Karras et al. 2022, eq. 5
    leading, trailing, linspace                                 whole steps of a chain (Lin et al. 2024, table 2)

A chain of T steps counts its calls k = 0 ... T - 1: call k is made at t = (k + 1) / T.  lambda is infinite at data, so
what is even in it stops at the time `least`, then 0; and at pure noise, so there levels below LOWEST count as LOWEST.
"""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from . import schedules
from .types import Schedule

LOWEST = -12.0  # of log-SNR: alpha / sigma = 1 / 400, somewhat below the ends of linear, ve and edm


def grid(steps: int, *, start: float = 1.0, stop: float = 0.0) -> Float[Array, "points"]:
    """`steps` equal steps in t: [steps + 1].  Raises ValueError unless steps >= 1 and 0 <= stop < start <= 1."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    if not 0 <= stop < start <= 1:
        raise ValueError(f"a grid runs from start down to stop within [0, 1]; got start={start}, stop={stop}")
    return jnp.asarray(np.linspace(start, stop, steps + 1))


def uniform(schedule: Schedule, steps: int, *, start: float = 1.0, stop: float = 0.0) -> Array:
    """Even in t."""
    return grid(steps, start=start, stop=stop)


def quadratic(schedule: Schedule, steps: int, *, start: float = 1.0, stop: float = 0.0) -> Array:
    """The squares of even numbers: short steps near the data."""
    return check(stop + (start - stop) * grid(steps) ** 2)


def log_snr(schedule: Schedule, steps: int, *, start: float = 1.0, stop: float = 0.0, least: float = 1e-3) -> Array:
    """Even in log-SNR, down to `stop`, or to `least` and then 0."""
    return _even(schedule, steps, (start, stop, least), lambda x: x, lambda y: y)


def rho(
    schedule: Schedule, steps: int, *, start: float = 1.0, stop: float = 0.0, least: float = 1e-3, rho: float = 7.0
) -> Array:
    """Even in the rho-th root of sigma / alpha, down to `stop`, or to `least` and then 0."""
    n = -2 * rho
    return _even(schedule, steps, (start, stop, least), lambda x: jnp.exp(x / n), lambda y: n * jnp.log(y))


def leading(
    schedule: Schedule, steps: int, *, start: float = 1.0, stop: float = 0.0, chain: int = 1000, offset: int = 0
) -> Array:
    """Every (T // steps)-th call counted from the data, plus `offset`: the last call, k = T - 1, is not among them."""
    stride = round((start - stop) * chain) // max(steps, 1)
    return check(np.append((stop * chain + offset + stride * np.arange(steps)[::-1] + 1) / chain, stop))


def trailing(schedule: Schedule, steps: int, *, start: float = 1.0, stop: float = 0.0, chain: int = 1000) -> Array:
    """Every (T / steps)-th call counted from the noise: the last call is made first."""
    return check(np.append(np.linspace(start * chain, stop * chain, steps + 1)[:-1].round() / chain, stop))


def linspace(schedule: Schedule, steps: int, *, start: float = 1.0, stop: float = 0.0, chain: int = 1000) -> Array:
    """From the last call to the first, both made, evenly up to rounding (one step makes the first alone)."""
    return check(np.append((np.linspace(stop * chain, start * chain - 1, steps)[::-1].round() + 1) / chain, stop))


GRIDS = {row.__name__: row for row in (uniform, quadratic, log_snr, rho, leading, trailing, linspace)}


def pad(ts: Float[Array, "points *B"], points: int) -> Float[Array, "more *B"]:
    """ts with its last time repeated up to `points` entries, so that grids of several lengths share one program."""
    if points < len(ts):
        raise ValueError(f"a grid of {len(ts)} times cannot be padded to {points}; ask for at least as many")
    return jnp.pad(ts, [(0, points - len(ts))] + [(0, 0)] * (ts.ndim - 1), mode="edge")


def _even(schedule, steps, ends, clock, level):
    """Between start and stop, times even in clock(log-SNR), whose inverse is level."""
    start, stop, least = ends
    ts, reach = grid(steps, start=start, stop=stop), jnp.asarray([start, stop or least])
    first, last = clock(jnp.maximum(schedules.log_snr(schedule, reach), LOWEST))
    clocks = jnp.linspace(first, last, steps + (stop > 0))[1:steps]
    return check(ts.at[1:-1].set(schedules.time_of_log_snr(schedule, level(clocks))))


def check(ts: ArrayLike) -> Array:
    """ts.  Raises ValueError, saying where, unless it falls in [0, 1]; its last time may repeat.  Traced times pass."""
    if isinstance(ts, Tracer):
        return jnp.asarray(ts)
    ts = np.asarray(ts, float)
    if ts.ndim == 0 or len(ts) < 2:
        raise ValueError(f"a grid needs at least 2 times along its first axis, as [1, 0] has; got shape {ts.shape}")
    here, there, waits = ts[:-1], ts[1:], (ts[1:] == ts[:1]) & (ts.ndim > 1)  # some elements for others
    falls = (there < here) | ((there == here) & (waits | (there == ts[-1:])))
    for at in map(tuple, np.argwhere(~((ts >= 0) & (ts <= 1))).tolist()):  # NaN is not inside either
        raise ValueError(f"every time of a grid must lie in [0, 1]; got {ts[at]} at index {at}")
    for at in map(tuple, np.argwhere(~falls).tolist()):
        raise ValueError(f"a grid must fall, from noise to data; got {ts[at]} at index {at} and then {there[at]}")
    return jnp.asarray(ts)


given = check  # a user's own grid

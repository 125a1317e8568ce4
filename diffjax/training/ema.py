"""Averages of the parameters over training, which is what samples are drawn with.

A state holds one or more of them, in a tuple; samples are drawn with the first.

    warmed   ema + (1 - d)(params - ema), d = min(decay, (1 + step) / (10 + step))           Song & Ermon 2020
    power    int tau^gamma params(tau) dtau (gamma + 1) / t^(gamma + 1), by d = (1 - 1/t)^(gamma + 1), t = step + 1

A power-function average (Karras et al. 2024, "EDM2", section 3.1) is as long as training is: its weights have the mean
(gamma + 1) / (gamma + 2) t and a standard deviation of std t, which names it.  From snapshots of two of them any other
length is rebuilt afterwards (posthoc.py).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Average(NamedTuple):
    """A rule for some averages: init(params) -> tuple of trees; update(averages, params, step) -> averages."""

    init: Callable
    update: Callable
    stds: tuple[float, ...]  # the relative lengths of power-function averages; () for other kinds
    spans: Callable[[int], dict[str, float]]  # over how many steps each reaches back after so many


def warmed(decay: float) -> Average:
    """One exponential average, whose memory is short while there is little to remember.

    Raises ValueError unless 0 <= decay <= 1.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie in [0, 1]; got {decay}")
    kept = lambda step, least: least(decay, (1 + step) / (10 + step))  # noqa: E731
    spans = lambda step: {"ema_steps": 1 / max(1 - kept(step, min), 1e-12)}  # noqa: E731
    return _average(1, lambda step: [kept(step, jnp.minimum)], (), spans)


def power(stds: Sequence[float] = (0.05, 0.1)) -> Average:
    """Power-function averages of these relative standard deviations.  Raises ValueError unless 0 < std < 0.288."""
    gammas = [gamma_of(std) for std in stds]
    # log1p: 1 - 1/t rounds to few digits when t is large
    keep = lambda step: [jnp.exp((gamma + 1) * jnp.log1p(-1 / (step + 1))) for gamma in gammas]  # noqa: E731
    spans = lambda step: {f"ema_{std:g}_steps": std * step for std in stds}  # noqa: E731
    return _average(len(gammas), keep, tuple(stds), spans)


AVERAGES = {"warmed": warmed, "power": power}


def gamma_of(std: float) -> float:
    """The exponent of the power function with this relative standard deviation: the positive root of a cubic.

    std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) (Karras et al. 2024, eq. 126).  Raises ValueError unless
    0 < std < 12^(-1/2), that of gamma = 0.
    """
    if not 0 < std < 12**-0.5:
        raise ValueError(f"the relative standard deviation of an average must lie in (0, 0.288); got {std}")
    roots = np.roots([1, 7, 16 - std**-2, 12 - std**-2])
    return float(np.max(roots.real))


def _average(count: int, keep: Callable, stds: tuple[float, ...], spans: Callable) -> Average:
    def init(params: Any) -> tuple:
        return tuple(jax.tree.map(jnp.copy, params) for _ in range(count))  # copies: donated buffers are not shared

    def update(averages: tuple, params: Any, step: jax.Array) -> tuple:
        def towards(average, kept):
            return jax.tree.map(lambda e, p: e + (1 - kept).astype(e.dtype) * (p - e), average, params)

        return tuple(towards(average, kept) for average, kept in zip(averages, keep(step), strict=True))

    return Average(init, update, stds, spans)

"""Guidance: Denoise -> Denoise, so that guidances nest.

Classifier-free guidance (Ho & Salimans 2022, eq. 6), negative conditions and autoguidance (Karras et al. 2024) are one
extrapolation from a weak denoiser through a strong one; in x_0, eps or score it is the same line:

    x0_hat = weak + scale (strong - weak)            scale 1: the strong one alone;  0: the weak one;  > 1: beyond

A scale is one number, one per row [B], or a function t -> scale, traced or not; below 0 it leads away.  Guidances nest
in any order; these orders give the same (inverse.py declares those of tilts and known data), and no others:

    extrapolate(w, extrapolate(w, s, a), b) = extrapolate(w, s, a b);  an interval in an interval = where both hold
    a static threshold in a static threshold, if their ranges overlap
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array

from .types import Denoise, rows

Scale = ArrayLike | Callable[[Array], Array]


def extrapolate(weak: Denoise, strong: Denoise, scale: Scale) -> Denoise:
    """Guide with two denoisers: two conditions, or two qualities of one network (autoguidance); dicts leaf by leaf."""
    return lambda xt, t, cond: _steer(_line(scale), t, guess(strong, xt, t, cond), guess(weak, xt, t, cond))


def classifier_free(denoise: Denoise, null: Any, scale: Scale) -> Denoise:
    """Guide away from the condition `null` (shaped like one row of cond, or like cond) in one call of twice the batch.

    Rows alternate, so a batch split over devices stays split; `denoise` sees 2B, so what else is per row goes outside.
    """
    return _paired(denoise, null, _line(scale))


def negative(denoise: Denoise, negative_cond: Any, scale: Scale) -> Denoise:
    """Guide away from a condition given per row (shaped like cond), rather than from none at all."""
    return _paired(denoise, negative_cond, _line(scale))


def apg(denoise: Denoise, null: Any, scale: Scale, *, parallel: Scale = 0.0, radius: Scale = math.inf) -> Denoise:
    """Adaptive projected guidance: `classifier_free`, its update shortened and turned (Sadat et al. 2024).

    Of its part along the conditional x0_hat, which oversaturates, the share `parallel` is kept; its length is cut to
    `radius`, per row.  The paper's momentum is left out: a denoiser has no memory.
    """
    require(lambda r: r > 0, f"radius must be positive; got {radius}; inf cuts nothing", radius)

    def rule(at, strong, weak):
        dot = partial(jnp.sum, axis=tuple(range(1, strong.ndim)), keepdims=True)
        update, squared = strong - weak, dot(strong**2)
        along = dot(update * strong) / jnp.where(squared > 0, squared, 1) * strong
        # min(1, radius / |update|), with a finite gradient where the update is zero or the radius infinite
        shrink = jax.lax.rsqrt(jnp.maximum(1, dot(update**2) / at(radius) ** 2))
        return strong + (at(scale) - 1) * shrink * (update + (at(parallel) - 1) * along)

    return _paired(denoise, null, rule)


def interval(scale: Scale, *, low: ArrayLike, high: ArrayLike) -> Callable[[Array], Array]:
    """`scale` for low <= t <= high, and outside 1, no guidance: a scale too (Kynkaanniemi et al. 2024).

    Noise sigma / alpha = s, in which intervals are published, is at t = time_of_log_snr(schedule, -2 log s).
    """
    require(lambda a, b: a < b, f"the interval of guidance must have low < high; got {low}, {high}", low, high)
    return lambda t: jnp.where(
        (rows(low, t) <= t) & (t <= rows(high, t)), rows(scale(t) if callable(scale) else scale, t), 1
    )


def rescaled(guided: Denoise, conditional: Denoise, share: Scale = 0.7) -> Denoise:
    """`guided` with a share of its std, per row, set back to that of `conditional` (Lin et al. 2024, eq. 14-16)."""
    require(lambda a: (a >= 0) & (a <= 1), f"share must lie in [0, 1]; got {share}", share)

    def denoise(xt, t, cond):
        loud, plain = guess(guided, xt, t, cond), guess(conditional, xt, t, cond)
        much, right = (jnp.var(x, axis=tuple(range(1, x.ndim)), keepdims=True) for x in (loud, plain))
        ratio = jnp.sqrt(jnp.where(much > 0, right / jnp.where(much > 0, much, 1), 1))
        return loud * (1 + value_at(share, t, loud) * (ratio - 1))

    return denoise


def static_threshold(denoise: Denoise, low: Scale = -1.0, high: Scale = 1.0) -> Denoise:
    """x0_hat clipped to the range of the data (Saharia et al. 2022, section 2.3)."""
    require(lambda a, b: a < b, f"the range of a threshold must have low < high; got {low}, {high}", low, high)
    return lambda xt, t, cond: jnp.clip(guess(denoise, xt, t, cond), value_at(low, t, xt), value_at(high, t, xt))


def dynamic_threshold(denoise: Denoise, quantile: ArrayLike = 0.995, bound: Scale = 1.0) -> Denoise:
    """x0_hat clipped at its row's quantile of |x0_hat|, if over `bound`, and shrunk to bound (Saharia et al. 2022)."""
    require(lambda q: (q > 0) & (q <= 1), f"quantile must lie in (0, 1]; got {quantile}", quantile)
    require(lambda b: b > 0, f"bound must be positive; got {bound}", bound)

    def clipped(xt, t, cond):
        x0_hat, least = guess(denoise, xt, t, cond), value_at(bound, t, xt)
        size = jnp.quantile(jnp.abs(x0_hat).reshape(len(xt), -1), jnp.asarray(quantile, xt.dtype), axis=1)
        limit = jnp.maximum(rows(size, xt), least)
        return jnp.clip(x0_hat, -limit, limit) / limit * least

    return clipped


def require(holds: Callable, sentence: str, *values: Any) -> None:
    """Raise ValueError(sentence) unless holds(*values) everywhere; functions and traced values cannot be checked."""
    known = not any(callable(value) or isinstance(value, Tracer) for value in values)
    if known and not np.all(holds(*map(np.asarray, values))):
        raise ValueError(sentence)


def guess(denoise: Denoise, xt: Any, t: Array, cond: Any) -> Any:
    """denoise(xt, t, cond); ValueError unless every element of x_t gets its x0_hat."""
    x0_hat = denoise(xt, t, cond)
    for x, y in zip(jax.tree.leaves(xt), jax.tree.leaves(x0_hat), strict=True):
        if y.shape[: x.ndim] != x.shape:
            raise ValueError(f"the denoiser answers {y.shape} to x_t {x.shape}; it must answer for every element")
    return x0_hat


def value_at(value: Scale, t: Array, like: Array) -> Array:
    """A number, [B] or function of t, of the rank and dtype of `like` [B, *S]; ValueError if it does not fit."""
    value = rows(jnp.asarray(value(t) if callable(value) else value, like.dtype), like)
    fits = value.ndim <= like.ndim and all(n in (1, m) for n, m in zip(value.shape, like.shape, strict=False))
    require(lambda: fits, f"got {value.shape[:1]} values for data {like.shape}; give one number, or one for each row")
    return value


def all_rows(values: ArrayLike, like: Array | np.ndarray, name: str) -> Array:
    """One row [*S], or all [B, *S], as the rows of `like` [B, *S]; ValueError if they do not fit."""
    try:
        return jnp.broadcast_to(jnp.asarray(values, like.dtype), like.shape)
    except ValueError:
        raise ValueError(f"{name} {np.shape(values)} must be shaped like {like.shape}, or like one row of it") from None


def _line(scale):
    return lambda at, strong, weak: weak + at(scale) * (strong - weak)


def _steer(rule, t, strong, weak):
    return jax.tree.map(lambda s, w: rule(partial(value_at, t=t, like=s), s, w), strong, weak)


def _paired(denoise, null, rule):
    """The rule on conditional and null rows, from one call in which they alternate."""
    require(lambda: null is not None, "guidance needs the null condition that the network was trained with; got None")

    def guided(xt, t, cond):
        require(lambda: cond is not None, "guidance needs a condition to guide towards; got None")
        all_t = jnp.broadcast_to(t, jax.tree.leaves(xt)[0].shape[:1] + t.shape[1:])
        away = jax.tree.map(lambda c, n: all_rows(n, c, "null"), cond, null)
        mixed = lambda a, b: jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])  # noqa: E731  a0, b0, a1, b1, ...
        twice = guess(denoise, *jax.tree.map(mixed, (xt, all_t, cond), (xt, all_t, away)))
        return _steer(rule, t, jax.tree.map(lambda x: x[0::2], twice), jax.tree.map(lambda x: x[1::2], twice))

    return guided

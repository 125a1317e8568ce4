"""Guidance: Denoise -> Denoise.

Classifier-free guidance (Ho & Salimans 2022, eq. 6) and autoguidance (Karras et al. 2024) are both an extrapolation
from a weak denoiser through a strong one; in x_0, eps or score it is the same line, for all three are affine in each
other:

    x0_hat = weak + scale (strong - weak)            scale 1: the strong one alone;  0: the weak one;  > 1: beyond
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .types import Denoise, rows


def extrapolate(weak: Denoise, strong: Denoise, scale: ArrayLike) -> Denoise:
    """Guide with two denoisers; `scale` is one number or one per row [B], traced or not."""

    def denoise(xt, t, cond):
        low = weak(xt, t, cond)
        return low + rows(scale, xt) * (strong(xt, t, cond) - low)

    return denoise


def classifier_free(denoise: Denoise, null: Any, scale: ArrayLike) -> Denoise:
    """Guide away from the condition `null` (shaped like one row of cond) in one call of twice the batch.

    Rows alternate, conditional and null: a batch split over devices stays split, with nothing to exchange.
    """

    def guided(xt, t, cond):
        null_rows = jax.tree.map(lambda c, n: jnp.broadcast_to(jnp.asarray(n, c.dtype), c.shape), cond, null)
        twice = denoise(_alternate(xt, xt), _alternate(t, t), jax.tree.map(_alternate, cond, null_rows))
        strong, weak = twice[0::2], twice[1::2]
        return weak + rows(scale, xt) * (strong - weak)

    return guided


def _alternate(a, b):
    """[B, ...] and [B, ...] -> [2B, ...]: a0, b0, a1, b1, ..."""
    return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])

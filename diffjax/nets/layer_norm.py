"""Normalisation over channels without gains of its own, scaled and shifted by the embedding, as one operation.

    y = xhat (1 + scale) + shift
    layer    xhat = (x - mean) / sqrt(var + eps)             (Ba et al. 2016; Peebles & Xie 2023, "adaLN")
    rms      xhat = x / sqrt(mean(x^2) + eps)                (Zhang & Sennrich 2019)

Backward, with g = dy (1 + scale), r the factor of x, and <.> the mean over channels,

    dx = r (g - xhat <g xhat> - <g>)        the last term in `layer` alone
    dscale = sum dy xhat,  dshift = sum dy  over positions

Statistics and sums are in float32 whatever x is; the backward pass finds x and scale in memory, and nothing else.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPS = 1e-6


def layer(x: Float[Array, "B *N C"], scale: Float[Array, "B C"], shift: Float[Array, "B C"]) -> Float[Array, "B *N C"]:
    """Mean 0 and variance 1 over channels, then scale and shift of the row."""
    return _modulated(x, scale, shift, True)


def rms(x: Float[Array, "B *N C"], scale: Float[Array, "B C"], shift: Float[Array, "B C"]) -> Float[Array, "B *N C"]:
    """Mean square 1 over channels, then scale and shift of the row."""
    return _modulated(x, scale, shift, False)


NORMS = {"layer": layer, "rms": rms}


def unit(x: Float[Array, "*N C"], gain: Float[Array, "C"]) -> Float[Array, "*N C"]:
    """Mean square 1 over channels, times a gain: for queries and keys (Henry et al. 2020)."""
    return (_normal(x, False)[0] * gain.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def _normal(x, centred):
    """(xhat, r) in float32, or in x's own precision if that is greater."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x - x.mean(-1, keepdims=True) if centred else x
    r = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPS)
    return x * r, r


def _rowwise(a, like):
    """[B, C] -> [B, 1..., C] in like's precision."""
    return a.astype(like.dtype).reshape(a.shape[0], *(1,) * (like.ndim - 2), a.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _modulated(x, scale, shift, centred):
    xhat, _ = _normal(x, centred)
    return (xhat * (1 + _rowwise(scale, xhat)) + _rowwise(shift, xhat)).astype(x.dtype)


def _forward(x, scale, shift, centred):
    return _modulated(x, scale, shift, centred), (x, scale)


def _backward(centred, kept, dy):
    x, scale = kept
    xhat, r = _normal(x, centred)
    dy = dy.astype(xhat.dtype)
    g = dy * (1 + _rowwise(scale, xhat))
    # By vecdot, for on a CPU a product that is summed is slow; HIGHEST, for elsewhere products may be rounded.
    dx = g - xhat * (jnp.vecdot(g, xhat, precision=jax.lax.Precision.HIGHEST)[..., None] / x.shape[-1])
    dx = dx - g.mean(-1, keepdims=True) if centred else dx
    positions = tuple(range(1, x.ndim - 1))
    dscale, dshift = (dy * xhat).sum(positions), dy.sum(positions)
    return (r * dx).astype(x.dtype), dscale.astype(scale.dtype), dshift.astype(scale.dtype)


_modulated.defvjp(_forward, _backward)

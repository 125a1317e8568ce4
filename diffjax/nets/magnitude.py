"""Layers that keep the magnitude of what passes: in unit variance, out unit variance (Karras et al. 2024, "EDM2").

    |x|     root mean square, over the channels of a pixel or over the inputs of an output channel
    norm    x / (eps + |x|)                                                             section 2.3
    layer   (w / (eps + |w|) / sqrt(inputs)) * x                                        eq. 47, 66
    silu    silu(x) / 0.596                                                             eq. 81
    sum     ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)                                   eq. 88
    cat     sqrt((Na + Nb) / ((1 - t)^2 + t^2)) [(1 - t) / sqrt(Na) a, t / sqrt(Nb) b]  eq. 103
    level   sqrt(2) [sin(2 pi f level), cos(2 pi f level)]                              eq. 75

Expectations take inputs for independent and of unit variance.  The weights themselves are put back to |w| = 1 after
every update, or they would grow and every step would turn them less (section 2.3): a layer's kernel is a parameter with
a projection (functional.py).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpy import prod, sqrt

from .convolution import convolve
from .embeddings import normal
from .linear import product

EPS = 1e-4
TINY = 1e-30  # under a root: the slope of |x| at x = 0 is 0
SILU = 0.596  # root of E[silu(z)^2], z ~ N(0, 1)


def unit(x: Float[Array, "*S"], axes: int | tuple[int, ...] = -1) -> Float[Array, "*S"]:
    """x over its root mean square along `axes`, computed in float32; zero stays zero."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.mean(jnp.square(wide), axis=axes, keepdims=True)
    return (wide / (EPS + jnp.sqrt(jnp.maximum(square, TINY)))).astype(x.dtype)


def unit_columns(kernel: Float[Array, "*size I O"]) -> Float[Array, "*size I O"]:
    """A kernel whose every output channel has weights of root mean square 1."""
    return unit(kernel, tuple(range(kernel.ndim - 1)))


def mp_silu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """For normal x of unit variance."""
    return jax.nn.silu(x) / SILU


def mp_sum(a: Float[Array, "*S"], b: Float[Array, "*S"], t: float) -> Float[Array, "*S"]:
    """From a at t = 0 to b at t = 1."""
    return ((1 - t) * a + t * b) / float(sqrt((1 - t) ** 2 + t**2))


def mp_cat(a: Float[Array, "*S A"], b: Float[Array, "*S B"], t: float) -> Float[Array, "*S C"]:
    """Joined channels; a and b contribute 1 - t to t whatever their widths."""
    total = sqrt((a.shape[-1] + b.shape[-1]) / ((1 - t) ** 2 + t**2))
    weight_a, weight_b = total * (1 - t) / sqrt(a.shape[-1]), total * t / sqrt(b.shape[-1])
    return jnp.concatenate([float(weight_a) * a, float(weight_b) * b], axis=-1)


def mp_fourier(level: Float[Array, "B"], width: int) -> Float[Array, "B width"]:
    """Sines and cosines of frequencies N(0, 1), in pairs: of magnitude 1 at every level, not only on average."""
    return float(sqrt(2)) * normal(level, width, std=1.0)


class Layer(nnx.Module):
    """A linear map of the channels or, with a `size`, a convolution that keeps the grid's; without bias.

    (x [B, *S, I], gain []) -> gain times [B, *S, O] of magnitude 1.
    """

    def __init__(self, inputs: int, outputs: int, *, size: tuple[int, ...] = (), dtype, rngs: nnx.Rngs):
        drawn = jax.random.normal(rngs.params(), (*size, inputs, outputs), jnp.float32)
        self.kernel = nnx.Param(unit_columns(drawn), project=unit_columns)
        self.scale, self.dtype = float(1 / sqrt(prod((*size, inputs)))), dtype

    def __call__(self, x: Float[Array, "B *S I"], gain: ArrayLike = 1.0) -> Float[Array, "B *S O"]:
        kernel = (unit_columns(self.kernel[...]) * (self.scale * gain)).astype(self.dtype)
        return product(x, kernel) if kernel.ndim == 2 else convolve(x, kernel)

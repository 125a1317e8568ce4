"""Group normalisation (Wu & He 2018), FiLM (Perez et al. 2018) and SiLU as one operation, channels last, any rank.

    y = f(a x + b),    a = scale rstd (1 + s),    b = (bias - mean scale rstd) (1 + s) + t,    f(z) = z sigmoid(z) or z

with mean and rstd over a group's channels and positions, s and t the two halves of a FiLM.  Forward this is a pass of
sums and a pass of a multiply-add and f.  The backward pass keeps x and the a, b of every channel alone and computes z
again: a pass of the sums of dz and dz x, and one that gives dx.  Sums are float32 at least.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


def group_norm(
    x: Float[Array, "B *S C"],
    scale: Float[Array, "C"],
    bias: Float[Array, "C"],
    film: Float[Array, "B twoC"] | None = None,
    *,
    groups: int,
    eps: float,
    silu: bool = False,
) -> Float[Array, "B *S C"]:
    """x normalised in `groups` groups of neighbouring channels, modulated by `film` if there is one."""
    mean, square = _means(x)
    a, b = _affine(mean, square, scale, bias, film, groups=groups, eps=eps)
    a, b = (jnp.expand_dims(c, tuple(range(1, x.ndim - 1))) for c in (a, b))
    return _activated(x, a, b) if silu else (_wide(x) * a + b).astype(x.dtype)


# What derivatives keep of both passes is x, and not z or sigmoid(z).  A custom VJP would do the same for the backward
# pass alone: the likelihood's divergence is a forward derivative.


@jax.checkpoint
def _means(x):
    positions = tuple(range(1, x.ndim - 1))
    return _wide(x).mean(positions), jnp.square(_wide(x)).mean(positions)


@jax.checkpoint
def _activated(x, a, b):
    return jax.nn.silu(_wide(x) * a + b).astype(x.dtype)


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _affine(mean, square, scale, bias, film, *, groups, eps):
    """a, b [B, C] from the means of x and of x^2 in every channel."""

    def shared(means):
        grouped = means.reshape(len(means), groups, -1)
        return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(means.shape)

    mean, square = shared(mean), shared(square)
    a = jax.lax.rsqrt(jnp.maximum(square - mean**2, 0) + eps) * scale[None, :]
    b = bias[None, :] - mean * a
    if film is None:
        return a, b
    s, t = jnp.split(film.astype(a.dtype), 2, axis=-1)
    return a * (1 + s), b * (1 + s) + t


class GroupNorm(nnx.Module):
    """At most `groups` groups of at least `least` channels, as many as divide the channels evenly."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs, groups: int = 32, least: int = 4, eps: float = 1e-5):
        most = min(groups, max(channels // least, 1))
        self.groups, self.eps = next(g for g in range(most, 0, -1) if channels % g == 0), eps
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(
        self, x: Float[Array, "B *S C"], film: Float[Array, "B twoC"] | None = None, *, silu: bool = False
    ) -> Float[Array, "B *S C"]:
        return group_norm(x, self.scale[...], self.bias[...], film, groups=self.groups, eps=self.eps, silu=silu)

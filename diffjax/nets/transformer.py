"""The blocks of transformers: attention within a set of tokens and to another, MLPs, and adaLN-Zero around them.

    h = h + gate  attention(norm(h) (1 + scale) + shift)
    h = h + cross(h, context)                                       if there is a context (Chen et al. 2023, PixArt)
    h = h + gate' mlp(norm(h) (1 + scale') + shift')

with the six vectors linear in the embedding, zero at first, so that a new block is the identity (Peebles & Xie 2023).
Tokens come in groups, [B, G, N, C]: attention is within a group, so that a video's frames are groups of its patches,
and with the two axes exchanged its patches are groups of their frames.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from .attention import attend
from .blocks import ZEROS
from .layer_norm import NORMS, unit
from .linear import Linear
from .positions import turned


class Told(NamedTuple):
    """What every block reads beside its tokens."""

    emb: Float[Array, "B E"]
    angles: Float[Array, "G N half"] | None = None  # of rotary positions
    mask: Bool[Array, "B N"] | None = None  # which tokens are there
    context: Any = None  # [B, L, C], for blocks that cross
    context_mask: Bool[Array, "B L"] | None = None


class Attention(nnx.Module):
    """Every token reads all tokens of its group."""

    def __init__(self, width: int, *, heads: int, qk_norm: bool, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = Linear(width, (3, width), dtype=dtype, rngs=rngs)
        self.gain = nnx.Param(jnp.ones((2, width // heads))) if qk_norm else None
        self.out = Linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, h, told: Told):
        batch, groups, count, width = h.shape
        qkv = self.qkv(h).reshape(batch, groups, count, 3, self.heads, -1)
        q, k, v = (qkv[..., i, :, :] for i in range(3))
        q, k = (q, k) if self.gain is None else (unit(a, self.gain[i]) for i, a in enumerate((q, k)))
        q, k = (q, k) if told.angles is None else (turned(a, told.angles) for a in (q, k))
        q, k, v = (a.reshape(batch * groups, count, self.heads, -1) for a in (q, k, v))
        return self.out(attend(q, k, v, told.mask).reshape(h.shape))


class CrossAttention(nnx.Module):
    """Every token reads all tokens of the context; nothing at first."""

    def __init__(self, width: int, *, heads: int, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.q = Linear(width, width, dtype=dtype, rngs=rngs)
        self.kv = Linear(width, (2, width), dtype=dtype, rngs=rngs)
        self.out = Linear(width, width, kernel_init=ZEROS, dtype=dtype, rngs=rngs)

    def __call__(self, h, told: Told):
        batch, width = h.shape[0], h.shape[-1]
        q = self.q(h).reshape(batch, -1, self.heads, width // self.heads)
        kv = self.kv(told.context).reshape(batch, -1, 2, self.heads, width // self.heads)
        return self.out(attend(q, kv[:, :, 0], kv[:, :, 1], told.context_mask).reshape(h.shape))


def gelu(x: Float[Array, "*N one C"]) -> Float[Array, "*N C"]:
    """x Phi(x), by its approximation with tanh (Hendrycks & Gimpel 2016)."""
    return jax.nn.gelu(x[..., 0, :], approximate=True)


def erf_gelu(x: Float[Array, "*N one C"]) -> Float[Array, "*N C"]:
    """x Phi(x) itself."""
    return jax.nn.gelu(x[..., 0, :], approximate=False)


def quick_gelu(x: Float[Array, "*N one C"]) -> Float[Array, "*N C"]:
    """x sigmoid(1.702 x), near x Phi(x) (Hendrycks & Gimpel 2016)."""
    return x[..., 0, :] * jax.nn.sigmoid(1.702 * x[..., 0, :])


def swiglu(x: Float[Array, "*N two C"]) -> Float[Array, "*N C"]:
    """silu(a) b of two halves (Shazeer 2020)."""
    return jax.nn.silu(x[..., 0, :]) * x[..., 1, :]


# With the number of its inputs.
MLPS = {"gelu": (gelu, 1), "erf_gelu": (erf_gelu, 1), "quick_gelu": (quick_gelu, 1), "swiglu": (swiglu, 2)}


class Mlp(nnx.Module):
    """Each token by itself: a layer, an activation of MLPS, a layer; as wide as makes 8 width^2 parameters."""

    def __init__(self, width: int, *, activation: str, dtype, rngs: nnx.Rngs):
        self.activation, inputs = MLPS[activation]
        hidden = 8 * width // (inputs + 1)
        self.first = Linear(width, (inputs, hidden), dtype=dtype, rngs=rngs)
        self.second = Linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, h):
        return self.second(self.activation(self.first(h)))


def at_each_token(row: Float[Array, "B C"], like: Float[Array, "B *N C"]) -> Float[Array, "B *N C"]:
    """A row's vector at each of its tokens; over all axes at once, for CPUs are slow to sum over some of them."""
    return jax.lax.broadcast_in_dim(row, like.shape, (0, like.ndim - 1))


class Block(nnx.Module):
    """(h [B, G, N, C], told) -> h."""

    def __init__(
        self, width: int, *, heads: int, mlp: str, norm: str, qk_norm: bool, cross: bool, dtype, rngs: nnx.Rngs
    ):
        plain: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.norm = NORMS[norm]
        self.film = Linear(width, (6, width), kernel_init=ZEROS, **plain)
        self.attention = Attention(width, heads=heads, qk_norm=qk_norm, **plain)
        self.cross = CrossAttention(width, heads=heads, **plain) if cross else None
        self.mlp = Mlp(width, activation=mlp, **plain)

    def __call__(self, h, told: Told):
        film = self.film(told.emb)
        shift, scale, gate, shift2, scale2, gate2 = (film[:, i] for i in range(6))
        h = h + at_each_token(gate, h) * self.attention(self.norm(h, scale, shift), told)
        if self.cross is not None:
            h = h + self.cross(h, told)
        return h + at_each_token(gate2, h) * self.mlp(self.norm(h, scale2, shift2))


class FactorisedBlock(nnx.Module):
    """A block within each frame, then one within each patch's frames (Ma et al. 2024, "Latte", variant 1)."""

    def __init__(self, width: int, **options):
        self.space, self.time = Block(width, **options), Block(width, **options)

    def __call__(self, h, told: Told):
        turn = partial(jnp.swapaxes, axis1=1, axis2=2)
        across = told._replace(angles=None if told.angles is None else told.angles.swapaxes(0, 1))
        return turn(self.time(turn(self.space(h, told)), across))

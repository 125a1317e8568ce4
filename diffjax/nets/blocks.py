"""The pieces of convolutional networks, channels last: group norm with FiLM, residual block, attention, resampling.

The embedding enters every residual block by FiLM (Perez et al. 2018; Dhariwal & Nichol 2021, "adaptive group norm"):
norm(h) (1 + scale) + shift, with scale and shift linear in the embedding.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from diffjax.diffusion.types import Keys, fold

from .attention import attend

ZEROS, LECUN_NORMAL = nnx.initializers.zeros_init(), nnx.initializers.lecun_normal()


def conv(
    inputs: int, outputs: int, *, size: int = 3, stride: int = 1, dtype, rngs: nnx.Rngs, zero: bool = False
) -> nnx.Conv:
    """A square convolution that keeps the picture's size (over its stride); `zero` starts it at nothing."""
    init = ZEROS if zero else LECUN_NORMAL
    return nnx.Conv(inputs, outputs, (size, size), strides=stride, kernel_init=init, dtype=dtype, rngs=rngs)


class GroupNorm(nnx.Module):
    """Group normalisation (Wu & He 2018) and FiLM folded into one multiply-add per element, in float32."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs, eps: float = 1e-5):
        self.groups, self.eps = _groups(channels), eps
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(
        self, x: Float[Array, "B H W C"], film: Float[Array, "B twoC"] | None = None
    ) -> Float[Array, "B H W C"]:
        batch, channels = x.shape[0], x.shape[-1]
        x32 = x.astype(jnp.float32)
        moments = jnp.stack([x32.mean((1, 2)), jnp.square(x32).mean((1, 2))])  # [2, B, C]
        grouped = moments.reshape(2, batch, self.groups, -1).mean(-1, keepdims=True)
        mean = jnp.broadcast_to(grouped[0], (batch, self.groups, channels // self.groups)).reshape(batch, channels)
        rstd = jax.lax.rsqrt(jnp.maximum(grouped[1] - grouped[0] ** 2, 0) + self.eps)
        rstd = jnp.broadcast_to(rstd, (batch, self.groups, channels // self.groups)).reshape(batch, channels)
        gain = rstd * self.scale[None, :]
        shift = self.bias[None, :] - mean * gain
        if film is not None:
            more, offset = jnp.split(film.astype(jnp.float32), 2, axis=-1)
            gain, shift = gain * (1 + more), shift * (1 + more) + offset
        return (x32 * gain[:, None, None, :] + shift[:, None, None, :]).astype(x.dtype)


class ResBlock(nnx.Module):
    """norm, silu, conv, norm with FiLM, silu, dropout, conv; plus the input."""

    def __init__(self, inputs: int, outputs: int, *, embedding: int, dropout: float, dtype, rngs: nnx.Rngs):
        make = partial(conv, dtype=dtype, rngs=rngs)
        self.norm1, self.conv1 = GroupNorm(inputs, rngs=rngs), make(inputs, outputs)
        self.film = nnx.Linear(embedding, 2 * outputs, kernel_init=ZEROS, dtype=dtype, rngs=rngs)
        self.norm2, self.conv2 = GroupNorm(outputs, rngs=rngs), make(outputs, outputs, zero=True)
        self.dropout = dropout
        self.skip = make(inputs, outputs, size=1) if inputs != outputs else None

    def __call__(self, x, emb, key=None):
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        h = jax.nn.silu(self.norm2(h, self.film(emb)))
        h = self.conv2(dropped(h, self.dropout, key))
        return (x if self.skip is None else self.skip(x)) + h


class Attention(nnx.Module):
    """Self-attention over all positions, pre-norm, residual; softmax in float32; heads at least `head_width` wide."""

    def __init__(self, channels: int, *, head_width: int, dtype, rngs: nnx.Rngs):
        self.heads = next(h for h in range(max(channels // head_width, 1), 0, -1) if channels % h == 0)
        self.norm = GroupNorm(channels, rngs=rngs)
        self.qkv = nnx.Linear(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(channels, channels, kernel_init=ZEROS, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        batch, height, width, channels = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, height * width, 3, self.heads, -1)
        h = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return x + self.out(h.reshape(batch, height, width, channels))


def folded(key: Keys | None, i: int) -> Keys | None:
    """fold_in of one key, of every row's [B], or of none."""
    return None if key is None else fold(key, i)


def dropped(x: Float[Array, "B *S"], rate: float, key: Keys | None) -> Float[Array, "B *S"]:
    """Dropout (Srivastava et al. 2014), in training alone; with a key per row [B] a row's does not depend on others."""
    if key is None or not rate:
        return x
    keep = lambda key, shape: jax.random.bernoulli(key, 1 - rate, shape)  # noqa: E731
    kept = jax.vmap(lambda k: keep(k, x.shape[1:]))(key) if key.ndim else keep(key, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def _keeps_products(primitive, *_, **params) -> bool:
    """Those with parameters, which are as large as x; attention's own, of one batch with another, are as its square."""
    if primitive is jax.lax.dot_general_p:
        return not any(params["dimension_numbers"][1])
    return primitive is jax.lax.conv_general_dilated_p


# What the backward pass finds in memory of what is inside a block; the rest is computed again.
REMAT = {
    "none": None,
    "dots": _keeps_products,
    "blocks": jax.checkpoint_policies.nothing_saveable,
}


def remat(module: nnx.Module, policy: str, *args) -> Array:
    """module(*args), with what `policy` says kept for the backward pass (Chen et al. 2016)."""
    if policy == "none":
        return module(*args)
    graph, state = nnx.split(module)
    call = jax.checkpoint(lambda state, *args: nnx.merge(graph, state)(*args), policy=REMAT[policy])
    return call(state, *args)


def double(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """Nearest-neighbour upsampling by two."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def _groups(channels: int) -> int:
    """At most 32 groups of at least 4 channels, dividing them evenly."""
    return next(g for g in range(min(32, max(channels // 4, 1)), 0, -1) if channels % g == 0)

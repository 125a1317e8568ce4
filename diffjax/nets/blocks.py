"""The pieces of convolutional networks, channels last, any rank: residual block, self- and cross-attention, remat.

The embedding e of the level enters a residual block at its second norm, by a row of ENTRIES:

    film    norm(h) (1 + s) + t,  [s, t] linear in e      Perez et al. 2018; Dhariwal & Nichol 2021
    add     norm(h + t),  t linear in e                   Ho et al. 2020
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from diffjax.diffusion.types import Keys, fold

from .attention import attend
from .convolution import Convolution, convolution_p
from .design import Design
from .group_norm import GroupNorm
from .linear import Linear, product

ZEROS, LECUN_NORMAL = nnx.initializers.zeros_init(), nnx.initializers.lecun_normal()


def conv(inputs: int, outputs: int, *, rank: int = 2, dtype, rngs: nnx.Rngs, zero: bool = False) -> Convolution:
    """A convolution over `rank` axes, three long along each, that keeps their lengths; `zero` starts it at nothing."""
    init = ZEROS if zero else LECUN_NORMAL
    return Convolution(inputs, outputs, (3,) * rank, kernel_init=init, dtype=dtype, rngs=rngs)


class Pointwise(nnx.Conv):
    """A convolution of length one, computed as a product: its gradient as a convolution is slow on CPUs."""

    def __init__(self, inputs: int, outputs: int, *, rank: int, dtype, rngs: nnx.Rngs):
        super().__init__(inputs, outputs, (1,) * rank, kernel_init=LECUN_NORMAL, dtype=dtype, rngs=rngs)

    def __call__(self, x):  # type: ignore[override]
        kernel = self.kernel[...].astype(x.dtype)
        bias = self.bias[...].astype(x.dtype)  # pyright: ignore[reportOptionalSubscript]
        return product(x, kernel.reshape(kernel.shape[-2:]), bias)


def normed(channels: int, design: Design, *, rngs: nnx.Rngs) -> GroupNorm:
    """The design's norm of so many channels."""
    return GroupNorm(channels, groups=design.groups, least=design.group_width, eps=design.eps, rngs=rngs)


def film(norm: GroupNorm, h: Float[Array, "B *S C"], e: Float[Array, "B twoC"]) -> Float[Array, "B *S C"]:
    """silu(norm(h) (1 + s) + t)."""
    return norm(h, e, silu=True)


def add(norm: GroupNorm, h: Float[Array, "B *S C"], e: Float[Array, "B C"]) -> Float[Array, "B *S C"]:
    """silu(norm(h + t))."""
    return norm(h + jnp.expand_dims(e, tuple(range(1, h.ndim - 1))), silu=True)


ENTRIES = {"film": (film, 2), "add": (add, 1)}  # and how many numbers of e a channel takes


class ResBlock(nnx.Module):
    """norm, silu, (resample,) conv, norm with the embedding, silu, dropout, conv; plus the input, resampled alike."""

    def __init__(
        self, inputs: int, outputs: int, design: Design, *, rank: int, rngs: nnx.Rngs,
        resample: Callable[[Array], Array] | None = None,
    ):  # fmt: skip
        make = partial(conv, rank=rank, dtype=design.dtype, rngs=rngs)
        self.enter, numbers = ENTRIES[design.entry]
        self.norm1, self.conv1 = normed(inputs, design, rngs=rngs), make(inputs, outputs)
        self.film = nnx.Linear(
            design.embedding_width * design.width, numbers * outputs, kernel_init=ZEROS, dtype=design.dtype, rngs=rngs
        )
        self.norm2, self.conv2 = normed(outputs, design, rngs=rngs), make(outputs, outputs, zero=True)
        self.dropout, self.scale, self.resample = design.dropout, design.residual_scale, resample
        projected = inputs != outputs or (resample is not None and design.project)
        self.skip = Pointwise(inputs, outputs, rank=rank, dtype=design.dtype, rngs=rngs) if projected else None

    def __call__(self, x, emb, key=None):
        h = self.norm1(x, silu=True)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.enter(self.norm2, self.conv1(h), self.film(emb))
        h = self.conv2(dropped(h, self.dropout, key))
        return ((x if self.skip is None else self.skip(x)) + h) * self.scale


class Attention(nnx.Module):
    """Self-attention over all positions, pre-norm, residual; softmax in float32."""

    def __init__(self, channels: int, design: Design, *, rngs: nnx.Rngs):
        self.heads, self.scale = heads(channels, design), design.residual_scale
        self.norm = normed(channels, design, rngs=rngs)
        self.qkv = Linear(channels, 3 * channels, dtype=design.dtype, rngs=rngs)
        self.out = Linear(channels, channels, kernel_init=ZEROS, dtype=design.dtype, rngs=rngs)

    def __call__(self, x):
        split = (len(x), -1, self.heads, x.shape[-1] // self.heads)
        q, k, v = (part.reshape(split) for part in jnp.split(self.qkv(self.norm(x)), 3, axis=-1))
        return (x + self.out(attend(q, k, v).reshape(x.shape))) * self.scale


class CrossAttention(nnx.Module):
    """Every position reads the tokens that `mask` leaves in, or nothing if it leaves none; pre-norm, residual."""

    def __init__(self, channels: int, design: Design, *, rngs: nnx.Rngs):
        self.heads = heads(channels, design)
        self.norm = normed(channels, design, rngs=rngs)
        self.q = Linear(channels, channels, dtype=design.dtype, rngs=rngs)
        self.kv = Linear(design.tokens, 2 * channels, dtype=design.dtype, rngs=rngs)
        self.out = Linear(channels, channels, kernel_init=ZEROS, dtype=design.dtype, rngs=rngs)

    def __call__(self, x, tokens: Float[Array, "B L K"], mask: Bool[Array, "B L"]):
        split = (len(x), -1, self.heads, x.shape[-1] // self.heads)
        q, kv = self.q(self.norm(x)).reshape(split), self.kv(tokens)
        k, v = (half.reshape(split) for half in jnp.split(kv, 2, axis=-1))
        h = self.out(attend(q, k, v, mask).reshape(x.shape))
        there = jnp.expand_dims(mask.any(1), tuple(range(1, x.ndim)))
        return x + jnp.where(there, h, 0)


def heads(channels: int, design: Design) -> int:
    """As many as the design says; else those `head_width` wide, fewer if they do not divide the channels.

    Raises ValueError if a given number does not.
    """
    if design.heads and channels % design.heads:
        raise ValueError(f"{design.heads} heads do not divide {channels} channels; choose a divisor, or head_width")
    return design.heads or next(h for h in range(max(channels // design.head_width, 1), 0, -1) if channels % h == 0)


def folded(key: Keys | None, i: int) -> Keys | None:
    """fold_in of one key, of every row's [B], or of none."""
    return None if key is None else fold(key, i)


def dropped(x: Float[Array, "B *S"], rate: float, key: Keys | None) -> Float[Array, "B *S"]:
    """Dropout (Srivastava et al. 2014), in training alone; with a key per row [B] a row's does not depend on others.

    Drawn in a line, as all noise is (diffusion/types.py).
    """
    if key is None or not rate:
        return x
    count = math.prod(x.shape[key.ndim :])
    draw = lambda key: jax.random.bernoulli(key, 1 - rate, (count,))  # noqa: E731
    kept = (jax.vmap(draw)(key) if key.ndim else draw(key)).reshape(x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def _keeps_products(primitive, *_, **params) -> bool:
    """Those with parameters, which are as large as x; attention's own, of one batch with another, are as its square."""
    if primitive is jax.lax.dot_general_p:
        return not any(params["dimension_numbers"][1])
    return primitive in (convolution_p, jax.lax.conv_general_dilated_p)


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

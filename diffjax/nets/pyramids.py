"""How a UNet goes from one size to the next, and what may run beside it at every size: rows of three tables.

    RESAMPLE    conv       a strided convolution; repetition and a convolution        Ho et al. 2020
                block      a residual block that resamples inside, through a filter   Brock et al. 2019
    ENCODERS    skip       a filtered copy of the input joins every size              Song et al. 2021, appendix H.1
                residual   so does its running sum with what is there, convolved
    DECODERS    skip       the answer is a sum of answers of every size

Karras et al. 2020 ("StyleGAN2") named the pyramids.
"""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from .blocks import LECUN_NORMAL, Pointwise, ResBlock, conv, normed
from .convolution import Convolution, convolve
from .design import Design
from .resampling import double, filtered, halve


class Halving(Convolution):
    """A convolution at every second position."""

    def __init__(self, channels: int, design: Design, *, rank: int, rngs: nnx.Rngs):
        super().__init__(
            channels, channels, (3,) * rank, strides=2, padding=[tuple(design.padding)] * rank,
            kernel_init=LECUN_NORMAL, dtype=design.dtype, rngs=rngs,
        )  # fmt: skip

    def __call__(self, x, emb, key=None):  # type: ignore[override]
        return super().__call__(x)


class Doubling(Convolution):
    """Every position twice along every axis, and a convolution."""

    def __init__(self, channels: int, design: Design, *, rank: int, rngs: nnx.Rngs):
        super().__init__(
            channels, channels, (3,) * rank, kernel_init=LECUN_NORMAL, dtype=design.dtype, rngs=rngs
        )  # fmt: skip

    def __call__(self, x, emb, key=None):  # type: ignore[override]
        return super().__call__(double(x))


def halving_block(channels: int, design: Design, *, rank: int, rngs: nnx.Rngs) -> ResBlock:
    """A residual block at half the size."""
    return ResBlock(channels, channels, design, rank=rank, rngs=rngs, resample=partial(halve, taps=design.taps))


def doubling_block(channels: int, design: Design, *, rank: int, rngs: nnx.Rngs) -> ResBlock:
    """A residual block at twice the size."""
    return ResBlock(channels, channels, design, rank=rank, rngs=rngs, resample=partial(double, taps=design.taps))


class SkipInput(nnx.Module):
    """(x, side) -> (x + the input at this size through a 1 x 1 convolution, the input at this size)."""

    def __init__(self, side: int, channels: int, design: Design, *, rank: int, rngs: nnx.Rngs):
        self.taps, self.gives = design.taps, side
        self.conv = Pointwise(side, channels, rank=rank, dtype=design.dtype, rngs=rngs)

    def __call__(self, x: Array, side: Array) -> tuple[Array, Array]:
        side = halve(side, self.taps)
        return x + self.conv(side), side


class ResidualInput(nnx.Module):
    """(x, side) -> their scaled sum, twice, after a convolution and a filter of side."""

    def __init__(self, side: int, channels: int, design: Design, *, rank: int, rngs: nnx.Rngs):
        self.taps, self.scale, self.gives = design.taps, design.residual_scale, channels
        self.conv = conv(side, channels, rank=rank, dtype=design.dtype, rngs=rngs)

    def __call__(self, x: Array, side: Array) -> tuple[Array, Array]:
        rank, reach = x.ndim - 2, len(self.taps) // 2
        # The convolution and the filter see beyond the edge together: one strided convolution, with zeros outside.
        kernel = filtered(self.conv.kernel[...], self.taps).astype(x.dtype)
        side = convolve(side, kernel, 2, [(reach, reach)] * rank)
        bias = self.conv.bias[...].astype(x.dtype)  # pyright: ignore[reportOptionalSubscript]
        x = (x + side + jnp.expand_dims(bias, tuple(range(rank + 1)))) * self.scale
        return x, x


class SkipOutput(nnx.Module):
    """(x, answer of the smaller sizes or None) -> their sum with this size's."""

    def __init__(self, channels: int, outputs: int, design: Design, *, rank: int, rngs: nnx.Rngs):
        self.taps, self.norm = design.taps, normed(channels, design, rngs=rngs)
        self.conv = conv(channels, outputs, rank=rank, dtype=design.dtype, rngs=rngs, zero=True)

    def __call__(self, x: Array, answer: Array | None) -> Array:
        here = self.conv(self.norm(x, silu=True))
        return here if answer is None else here + double(answer, self.taps)


RESAMPLE = {"conv": (Halving, Doubling), "block": (halving_block, doubling_block)}
ENCODERS = {"plain": None, "skip": SkipInput, "residual": ResidualInput}
DECODERS = {"plain": None, "skip": SkipOutput}

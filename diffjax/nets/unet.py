"""The UNet of diffusion models (Ho et al. 2020; Dhariwal & Nichol 2021): any channels, any size its strides divide.

    stem - [blocks, attention, halve] x levels - block, attention, block
         - [blocks with skips, attention, double] x levels - head

Every block's output on the way down is concatenated to a block's input on the way up.  Names in a checkpoint read
`down/0/blocks/1/conv1/kernel`.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from .blocks import REMAT, Attention, GroupNorm, ResBlock, conv, double, folded, remat
from .embeddings import Embedding

# Over the axis `tensor` of a mesh: what is wide inside a block, by its columns and then by its rows.
SHARDING = (
    (r"conv1/kernel", (None, None, None, "tensor")),
    (r"conv2/kernel", (None, None, "tensor", None)),
    (r"attention/\d+/out/kernel", ("tensor", None)),
    (r"attention/\d+/qkv/kernel", (None, "tensor")),
)


class Level(nnx.Module):
    """The residual blocks of one resolution, each followed by attention if the level has it; and the way on."""

    def __init__(
        self, inputs: list[int], outputs: int, *, attend: bool, head_width: int, remat: str, options: dict,
        resample=None,
    ):  # fmt: skip
        plain = {k: options[k] for k in ("dtype", "rngs")}
        self.blocks = nnx.List([ResBlock(n, outputs, **options) for n in inputs])
        self.attention = nnx.List([Attention(outputs, head_width=head_width, **plain) for _ in inputs if attend])
        self.resample, self.remat = resample, remat

    def walk(self, i, x, emb, key):
        x = remat(self.blocks[i], self.remat, x, emb, folded(key, i))
        return remat(self.attention[i], self.remat, x) if self.attention else x


class UNet(nnx.Module):
    """(x [B, H, W, C], level [B], label [B] or None) -> [B, H, W, C] float32."""

    def __init__(
        self, channels: int, widths: list[int], *, classes, blocks, attend, head_width, dropout, remat, dtype, rngs
    ):  # fmt: skip
        embedding = 4 * widths[0]
        options = dict(embedding=embedding, dropout=dropout, dtype=dtype, rngs=rngs)
        plain = dict(dtype=dtype, rngs=rngs)
        self.dtype = dtype
        self.embed = Embedding(embedding, classes, **plain)
        self.stem = conv(channels, widths[0], **plain)
        level = partial(Level, head_width=head_width, remat=remat, options=options)
        skips, width, last = [widths[0]], widths[0], len(widths) - 1
        self.down, self.up = nnx.List([]), nnx.List([])
        for i, outputs in enumerate(widths):
            inputs, width = [width] + [outputs] * (blocks - 1), outputs
            halve = conv(width, width, stride=2, **plain) if i < last else None
            self.down.append(level(inputs, outputs, attend=attend[i], resample=halve))
            skips += [width] * (blocks + (i < last))
        self.middle = level([width, width], width, attend=any(attend))
        for i, outputs in reversed(list(enumerate(widths))):
            inputs = []
            for _ in range(blocks + 1):
                inputs, width = [*inputs, width + skips.pop()], outputs
            double_conv = conv(width, width, **plain) if i > 0 else None
            self.up.append(level(inputs, outputs, attend=attend[i], resample=double_conv))
        self.norm, self.head = GroupNorm(width, rngs=rngs), conv(width, channels, zero=True, **plain)

    def __call__(self, x, level, cond=None, *, key=None):
        emb = self.embed(level, cond)
        keys = (folded(key, i) for i in itertools.count())
        x = self.stem(x.astype(self.dtype))
        skips = [x]
        for stage in self.down:
            dropout = next(keys)
            for i in range(len(stage.blocks)):
                skips.append(x := stage.walk(i, x, emb, dropout))
            if stage.resample is not None:
                skips.append(x := stage.resample(x))
        dropout = next(keys)
        for i in range(2):
            x = self.middle.walk(i, x, emb, dropout)
        for stage in self.up:
            dropout = next(keys)
            for i in range(len(stage.blocks)):
                x = stage.walk(i, jnp.concatenate([x, skips.pop()], axis=-1), emb, dropout)
            if stage.resample is not None:
                x = stage.resample(double(x))
        return self.head(jax.nn.silu(self.norm(x))).astype(jnp.float32)


def unet(
    shape: tuple[int, ...],
    classes: int,
    *,
    rngs: nnx.Rngs,
    width: int = 64,
    multipliers: tuple[int, ...] = (1, 2, 2),
    blocks: int = 2,
    attention: tuple[int, ...] = (16,),
    head_width: int = 64,
    dropout: float = 0.0,
    dtype: str = "float32",
    remat: str = "none",
) -> UNet:
    """A UNet for data of shape (H, W, C).

    Level i works at size / 2^i with width * multipliers[i] channels and `blocks` residual blocks; `attention` lists the
    resolutions (heights, in pixels) that attend; the middle attends if any does.  dtype is that of the arithmetic;
    parameters stay float32.  remat is what training keeps in memory of each block: all (none), products (dots), or
    nothing (blocks).  Raises ValueError if the shape is not (H, W, C) or does not divide by the strides.
    """
    if len(shape) != 3:
        raise ValueError(f"it needs data of shape (H, W, C); got {shape}; for points use net 'mlp'")
    if min(width, blocks, head_width, *multipliers, len(multipliers)) < 1:
        raise ValueError(
            f"width, blocks, head_width and one or more multipliers must be at least 1; "
            f"got {width}, {blocks}, {head_width}, {multipliers}"
        )
    if remat not in REMAT:
        raise ValueError(f"no remat '{remat}'; known: {', '.join(REMAT)}")
    stride = 2 ** (len(multipliers) - 1)
    if shape[0] % stride or shape[1] % stride:
        raise ValueError(
            f"data of {shape[0]} x {shape[1]} cannot be halved {len(multipliers) - 1} times: both sides "
            f"must be divisible by {stride}; resize the data or shorten net.multipliers"
        )
    attend = [shape[0] // 2**i in attention for i in range(len(multipliers))]
    widths = [width * m for m in multipliers]
    return UNet(
        shape[2], widths, classes=classes, blocks=blocks, attend=attend, head_width=head_width,
        dropout=dropout, remat=remat, dtype=jnp.dtype(dtype), rngs=rngs,
    )  # fmt: skip

"""The magnitude-preserving UNet (Karras et al. 2024, "EDM2", config G): no norms by group and no biases.

    embedding   silu(sum(layer(fourier(level)), layer(one-hot class)))
    stem        layer([x, 1])
    encoder     x = norm(layer(x));  h = layer(dropout(silu((1 + gain layer(embedding)) layer(silu(x)))))
    decoder     the same on [x, skip] without the norm, and layer(x) only beside h
    both        x = sum(x, h);  x = sum(x, layer(attention(x)));  clipped
    head        gain layer(x)

Every operation is the magnitude-preserving one of magnitude.py; gains are 0 at first.  Attention is by cosine: queries,
keys and values are normed.  Levels are joined by boxes of two by two.  Names in a checkpoint read
`down/3/body/conv1/kernel`.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .attention import attend
from .blocks import REMAT, dropped, folded, remat
from .conditions import label_of, parts
from .magnitude import Layer, mp_cat, mp_fourier, mp_silu, mp_sum, unit
from .resampling import check_sides, double, halve

LABEL, RESIDUAL, ATTENTION, SKIP = 0.5, 0.3, 0.3, 0.5  # the second one's share of a sum, of a concatenation
LARGEST = 256.0

# Over the axis `tensor` of a mesh: what is wide inside a block, by its columns and then by its rows.
SHARDING = (
    (r"conv1/kernel", (None, None, None, "tensor")),
    (r"conv2/kernel", (None, None, "tensor", None)),
    (r"attention/out/kernel", ("tensor", None)),
    (r"attention/qkv/kernel", (None, "tensor")),
)


class Embedding(nnx.Module):
    """(level [B], cond) -> [B, outputs], past the last activation.

    No label is the null class, `classes`, a class like the others; a vector, of unit variance, may be absent.
    """

    def __init__(self, features: int, outputs: int, *, classes: int, vector: int, layer: Callable):
        self.features, self.classes = features, classes
        self.level = layer(features, outputs)
        self.label = layer(classes + 1, outputs) if classes else None
        self.vector = layer(vector, outputs) if vector else None

    def __call__(self, level, cond):
        given, dtype = parts(cond), self.level.dtype
        h = self.level(mp_fourier(level, self.features).astype(dtype))
        if self.label is not None:
            label, count = label_of(cond, len(level), null=self.classes), self.classes + 1
            h = mp_sum(h, self.label(count**0.5 * jax.nn.one_hot(label, count, dtype=dtype)), LABEL)
        if self.vector is not None and "vector" in given:
            h = mp_sum(h, self.vector(jnp.asarray(given["vector"], dtype)), LABEL)
        return mp_silu(h)


class Attention(nnx.Module):
    """Self-attention over all positions, by the cosine of queries and keys; plus the input."""

    def __init__(self, channels: int, *, heads: int, layer: Callable):
        self.heads = heads
        self.qkv, self.out = layer(channels, 3 * channels), layer(channels, channels)

    def __call__(self, x):
        qkv = unit(self.qkv(x).reshape(len(x), -1, 3, self.heads, x.shape[-1] // self.heads))
        h = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return mp_sum(x, self.out(h.reshape(x.shape)), ATTENTION)


class Body(nnx.Module):
    """(x, what goes straight on, emb) -> their sum, attended and clipped."""

    def __init__(self, inputs: int, outputs: int, *, embedding: int, size, heads: int, dropout: float, layer: Callable):
        self.dropout = dropout
        self.conv1, self.conv2 = layer(inputs, outputs, size=size), layer(outputs, outputs, size=size)
        self.film, self.gain = layer(embedding, outputs), nnx.Param(jnp.zeros((), jnp.float32))
        self.attention = Attention(outputs, heads=heads, layer=layer) if heads else None

    def __call__(self, x, straight, emb, key=None):
        scale = 1 + jnp.expand_dims(self.film(emb, self.gain[...]), range(1, x.ndim - 1))
        h = mp_silu(self.conv1(mp_silu(x)) * scale)
        x = mp_sum(straight, self.conv2(dropped(h, self.dropout, key)), RESIDUAL)
        x = x if self.attention is None else self.attention(x)
        return jnp.clip(x, -LARGEST, LARGEST)


class Encoder(nnx.Module):
    """A block on the way down: its input is normed, once it has the width of its output."""

    def __init__(self, inputs: int, outputs: int, *, layer: Callable, resample: Callable | None = None, **options: Any):
        self.resample = resample
        self.skip = layer(inputs, outputs) if inputs != outputs else None
        self.body = Body(outputs, outputs, layer=layer, **options)

    def __call__(self, x, emb, key=None):
        x = x if self.resample is None else self.resample(x)
        x = unit(x if self.skip is None else self.skip(x))
        return self.body(x, x, emb, key)


class Decoder(nnx.Module):
    """A block on the way up."""

    def __init__(self, inputs: int, outputs: int, *, layer: Callable, resample: Callable | None = None, **options: Any):
        self.resample = resample
        self.skip = layer(inputs, outputs) if inputs != outputs else None
        self.body = Body(inputs, outputs, layer=layer, **options)

    def __call__(self, x, emb, key=None):
        x = x if self.resample is None else self.resample(x)
        return self.body(x, x if self.skip is None else self.skip(x), emb, key)


class EDM2(nnx.Module):
    """(x [B, *S, C], level [B], cond) -> [B, *S, C] float32."""

    def __init__(
        self, channels: int, widths: list[int], *, rank: int, attends: list[bool], head_width: int, blocks: int,
        classes: int, vector: int, dropout: float, remat: str, dtype, rngs: nnx.Rngs,
    ):  # fmt: skip
        layer, size, embedding = partial(Layer, dtype=dtype, rngs=rngs), (3,) * rank, max(widths)
        options = dict(embedding=embedding, size=size, dropout=dropout, layer=layer)
        encoder, decoder = partial(Encoder, **options), partial(Decoder, **options)
        heads = [width // head_width if here else 0 for width, here in zip(widths, attends, strict=True)]
        self.dtype, self.remat = dtype, remat
        self.embed = Embedding(widths[0], embedding, classes=classes, vector=vector, layer=layer)
        self.stem = layer(channels + 1, widths[0], size=size)
        self.down, self.up = nnx.List([]), nnx.List([])
        skips, width = [widths[0]], widths[0]
        for i, outputs in enumerate(widths):
            if i > 0:
                self.down.append(encoder(width, width, heads=0, resample=halve))
                skips.append(width)
            for _ in range(blocks):
                self.down.append(encoder(width, outputs, heads=heads[i]))
                skips.append(width := outputs)
        self.up.append(decoder(width, width, heads=width // head_width if any(attends) else 0))
        for i, outputs in reversed(list(enumerate(widths))):
            resample = double if i < len(widths) - 1 else None
            self.up.append(decoder(width, width, heads=0, resample=resample))
            for _ in range(blocks + 1):
                self.up.append(decoder(width + skips.pop(), outputs, heads=heads[i]))
                width = outputs
        self.joins = (False, *(False, *[True] * (blocks + 1)) * len(widths))  # the blocks of `up` that take a skip
        self.head, self.gain = layer(width, channels, size=size), nnx.Param(jnp.zeros((), jnp.float32))

    def __call__(self, x, level, cond=None, *, key=None):
        emb = self.embed(level, cond)
        keys = (folded(key, i) for i in itertools.count())
        x = x.astype(self.dtype)
        x = self.stem(jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1))
        skips = [x]
        for block in self.down:
            skips.append(x := remat(block, self.remat, x, emb, next(keys)))
        for block, joins in zip(self.up, self.joins, strict=True):
            x = mp_cat(x, skips.pop(), SKIP) if joins else x
            x = remat(block, self.remat, x, emb, next(keys))
        return self.head(x, self.gain[...]).astype(jnp.float32)


def edm2(
    shape: tuple[int, ...],
    classes: int,
    *,
    rngs: nnx.Rngs,
    width: int = 128,
    multipliers: tuple[int, ...] = (1, 2, 3, 4),
    blocks: int = 3,
    attention: tuple[int, ...] = (16, 8),
    head_width: int = 64,
    vector: int = 0,
    dropout: float = 0.0,
    dtype: str = "float32",
    remat: str = "none",
) -> EDM2:
    """The UNet of EDM2 for data of shape (H, W, C), or of one or three axes and channels.

    Level i works at size / 2^i with width * multipliers[i] channels and `blocks` blocks on the way down, one more on
    the way up; `attention` lists the resolutions (heights) that attend; the middle attends if any does.  The sizes of
    the paper, XS to XXL, are widths of 128, 192, 256, 320, 384 and 448.  `vector` is the length of a condition of that
    kind; dtype is that of the arithmetic; remat is what training keeps of each block (blocks.REMAT).  Raises ValueError
    if the shape does not divide by the strides, or a level that attends by head_width.
    """
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"it needs data of shape (H, W, C), (L, C) or (D, H, W, C); got {shape}")
    if min(width, blocks, head_width, *multipliers, len(multipliers)) < 1:
        raise ValueError(
            f"width, blocks, head_width and one or more multipliers must be at least 1; "
            f"got {width}, {blocks}, {head_width}, {multipliers}"
        )
    if remat not in REMAT:
        raise ValueError(f"no remat '{remat}'; known: {', '.join(REMAT)}")
    widths, attends = [width * m for m in multipliers], [shape[0] // 2**i in attention for i in range(len(multipliers))]
    _check(shape[:-1], widths, attends, head_width)
    return EDM2(
        shape[-1], widths, rank=len(shape) - 1, attends=attends, head_width=head_width, blocks=blocks, classes=classes,
        vector=vector, dropout=dropout, remat=remat, dtype=jnp.dtype(dtype), rngs=rngs,
    )  # fmt: skip


def _check(sides: tuple[int, ...], widths: list[int], attends: list[bool], head_width: int) -> None:
    check_sides(sides, len(widths) - 1)
    if widths[0] % 2:
        raise ValueError(f"the features of the level need an even width of at least 2; got {widths[0]}")
    attending = {width for width, here in zip([*widths, widths[-1]], [*attends, any(attends)], strict=True) if here}
    if any(width % head_width for width in attending):
        raise ValueError(
            f"head_width={head_width} must divide the widths that attend, {sorted(attending)}; change net.head_width"
        )

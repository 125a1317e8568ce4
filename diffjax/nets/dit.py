"""Diffusion transformers (Peebles & Xie 2023; with straight paths, "SiT", Ma et al. 2024) on data of any rank.

    patches -> linear, + positions -> blocks (transformer.py), one scan -> norm, scale and shift -> linear -> patches

The level and the class enter every block by adaLN-Zero; tokens, as a text encoder makes them, by cross-attention or in
front of the patches; an image as more channels of x.  Names in a checkpoint read `blocks/attention/qkv/kernel`, with
the depth as the first axis.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .blocks import REMAT, ZEROS
from .conditions import tokens_of, with_image
from .embeddings import Embedding
from .layer_norm import NORMS
from .linear import Linear
from .patches import PatchEmbedding, grid_of, unpatchify
from .positions import POSITIONS
from .stack import run, stacked
from .transformer import MLPS, Block, FactorisedBlock, Told

SIZES = {  # width, depth, heads
    "S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16), "H": (1280, 32, 16)
}  # fmt: skip
ATTENTION = {"full": (Block, 1), "factorised": (FactorisedBlock, 2)}  # and how much of the depth one of them is
CHOICES = dict(
    size=SIZES, context=("cross", "prefix"), positions=POSITIONS, attention=ATTENTION, mlp=MLPS, norm=NORMS, remat=REMAT
)

# What is wide inside a block, by columns (of every head, every half of an MLP) and then by rows.
SHARDING = (
    (r"blocks/.*(qkv|kv|first)/kernel", ("scan", None, None, "tensor")),
    (r"blocks/.*q/kernel", ("scan", None, "tensor")),
    (r"blocks/.*(out|second)/kernel", ("scan", "tensor", None)),
    *((r"blocks/.*", ("scan", *(None,) * rest)) for rest in (1, 2, 3)),
)


class Context(nnx.Module):
    """cond -> tokens [B, 1 + L, width] and which are there: a learned one always is, so that none is a sequence too."""

    def __init__(self, inputs: int, width: int, *, dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        self.none = nnx.Param(_small(rngs, width))
        self.project = Linear(inputs, width, dtype=dtype, rngs=rngs)

    def __call__(self, cond, rows: int):
        given = tokens_of(cond, self.dtype)
        tokens = jnp.broadcast_to(self.none[...].astype(self.dtype), (rows, 1, self.none.shape[0]))
        if given is None:
            return tokens, jnp.ones((rows, 1), bool)
        more, there = given
        return jnp.concatenate([tokens, self.project(more)], axis=1), jnp.pad(
            there, ((0, 0), (1, 0)), constant_values=True
        )


class DiT(nnx.Module):
    """(x [B, *S, C], level [B], cond) -> [B, *S, outputs C] float32, for any *S that the patches tile."""

    def __init__(
        self, shape, width, depth, *, patch, bottleneck, outputs, image, tokens, class_tokens, positions, attention,
        prefix: bool, embedding: dict, block: dict, remat, dtype, rngs,
    ):  # fmt: skip
        plain: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        self.patch, self.image, self.remat, self.dtype, self.prefix = patch, image, remat, dtype, prefix
        self.norm, (kind, share) = NORMS[block["norm"]], ATTENTION[attention]
        self.frames = kind is FactorisedBlock
        self.embed = Embedding(width, **embedding, **plain)
        self.stem = PatchEmbedding(shape[-1] + image, width, patch=patch, bottleneck=bottleneck, **plain)
        grid, head = grid_of(shape[:-1], patch), width // block["heads"]
        self.positions = nnx.List([POSITIONS[name](grid, width, head=head, rngs=rngs) for name in positions])
        self.context = Context(tokens, width, **plain) if tokens else None
        self.class_tokens = nnx.Param(_small(rngs, class_tokens, width)) if class_tokens else None
        block = dict(block, cross=bool(tokens) and not prefix, dtype=dtype)
        self.blocks = stacked(lambda rngs: kind(width, **block, rngs=rngs), depth // share, rngs=rngs)
        self.film = Linear(width, (2, width), kernel_init=ZEROS, **plain)
        self.head = Linear(width, math.prod(patch) * shape[-1] * outputs, kernel_init=ZEROS, **plain)

    def __call__(self, x, level, cond=None, *, key=None):
        h, angles = self.stem(with_image(x.astype(self.dtype), cond, self.image)), None
        for position in self.positions:
            h, found = position(h)
            angles = angles if found is None else found
        batch, *grid, width = h.shape
        h = h.reshape(batch, grid[0] if self.frames else 1, -1, width)
        told = Told(self.embed(level, cond), None if angles is None else angles.reshape(*h.shape[1:3], -1))
        if self.context is not None and not self.prefix:
            told = told._replace(**dict(zip(("context", "context_mask"), self.context(cond, batch), strict=True)))
        patches = h.shape[2]
        h = run(self.blocks, self.remat, *self._preceded(h, told, cond))[:, :, -patches:]
        shift, scale = (self.film(told.emb)[:, i] for i in range(2))
        h = self.head(self.norm(h, scale, shift)).reshape(batch, *grid, -1)
        return unpatchify(h, self.patch).astype(jnp.float32)

    def _preceded(self, h, told, cond):
        """(h, told) with class tokens and context before the patches, where they do not turn."""
        front, rows = [], len(h)
        if self.class_tokens is not None:
            tokens = jnp.broadcast_to(self.class_tokens[...].astype(self.dtype)[None], (rows, *self.class_tokens.shape))
            tokens = tokens + self.embed.of_label(cond, rows)[:, None] if self.embed.classes else tokens
            front.append((tokens, jnp.ones(tokens.shape[:2], bool)))
        if self.context is not None and self.prefix:
            front.append(self.context(cond, rows))
        if not front:
            return h, told
        tokens, there = (jnp.concatenate(part, axis=1) for part in zip(*front, strict=True))
        if told.angles is not None:
            told = told._replace(angles=jnp.pad(told.angles, ((0, 0), (tokens.shape[1], 0), (0, 0))))
        if self.prefix:
            told = told._replace(mask=jnp.pad(there, ((0, 0), (0, h.shape[2])), constant_values=True))
        return jnp.concatenate([tokens[:, None], h], axis=2), told


def dit(
    shape: tuple[int, ...], classes: int, *, rngs: nnx.Rngs,
    size: str = "S", width: int = 0, depth: int = 0, heads: int = 0,
    patch: int | tuple[int, ...] = 2, bottleneck: int = 0, outputs: int = 1,
    vector: int = 0, image: int = 0, tokens: int = 0, context: str = "cross", class_tokens: int = 0,
    features: str = "sinusoidal", options: dict | None = None, positions: str | tuple[str, ...] = "sincos",
    attention: str = "full", mlp: str = "gelu", norm: str = "layer", qk_norm: bool = False,
    dtype: str = "float32", remat: str = "dots",
) -> DiT:  # fmt: skip
    """A transformer for data of shape (*space, C), of any rank: trajectories, pictures, videos.

    `size` is a row of SIZES; width, depth and heads, where they are not 0, take its place.  `patch` is one side for all
    axes or one for each; `bottleneck` puts a narrower layer before the first; `outputs` times C channels come out.
    `features` and `options` are those of the level (embeddings.py); `vector`, `image` and `tokens` the channels of what
    else it is told, 0 if it never is; tokens are read by cross-attention or stand before the patches (`context`
    "prefix"), as `class_tokens` copies of the class do.  `positions` is a row of POSITIONS or several, applied in
    order; `attention` is "full" or, for videos, "factorised": within frames and across them by turns.  `mlp` and `norm`
    are rows of MLPS and NORMS; qk_norm normalises queries and keys.  dtype is that of the arithmetic; parameters stay
    float32.  remat is what training keeps in memory of each block: here products with parameters (dots) is the default,
    which is faster than all (none), and less; memory.remat "none" leaves it so.  Raises ValueError for what cannot be.
    """
    positions = (positions,) if isinstance(positions, str) else tuple(positions)
    chosen = dict(size=size, context=context, attention=attention, mlp=mlp, norm=norm, remat=remat)
    for kind, name in (*chosen.items(), *(("positions", name) for name in positions)):
        if name not in CHOICES[kind]:
            raise ValueError(f"no {kind} '{name}'; known: {', '.join(CHOICES[kind])}")
    width, depth, heads = (a or b for a, b in zip((width, depth, heads), SIZES[size], strict=True))
    patch = (patch,) * (len(shape) - 1) if isinstance(patch, int) else tuple(patch)
    _check(shape, patch, width, depth, heads, outputs)
    if attention == "factorised" and (len(shape) < 3 or depth % 2 or class_tokens or (tokens and context == "prefix")):
        raise ValueError(
            f"attention 'factorised' needs data of shape (time, *space, C), an even depth, and nothing before the "
            f"patches; got {shape}, depth {depth}, class_tokens {class_tokens} and context '{context}'"
        )
    return DiT(
        shape, width, depth, patch=patch, bottleneck=bottleneck, outputs=outputs, image=image, tokens=tokens,
        class_tokens=class_tokens, positions=positions, attention=attention,
        prefix=bool(tokens) and context == "prefix",
        embedding=dict(classes=classes, vector=vector, channels=256, features=features, options=options),
        block=dict(heads=heads, mlp=mlp, norm=norm, qk_norm=qk_norm), remat=remat, dtype=jnp.dtype(dtype), rngs=rngs,
    )  # fmt: skip


def pixel_transformer(
    shape: tuple[int, ...], classes: int, *, rngs: nnx.Rngs,
    size: str = "B", width: int = 0, depth: int = 0, heads: int = 0,
    patch: int | tuple[int, ...] = 16, bottleneck: int = 128, class_tokens: int = 32, outputs: int = 1,
    features: str = "sinusoidal", options: dict | None = None, dtype: str = "float32", remat: str = "dots",
) -> DiT:  # fmt: skip
    """A `dit` on large patches of pixels, made to predict the picture itself (Li & He 2025, "JiT").

    A narrow layer before the first, class tokens before the patches (here from the first block on), waves added and
    turned, SwiGLU, RMS norms, of queries and keys too.  Options are those of `dit`.
    """
    return dit(
        shape, classes, rngs=rngs, size=size, width=width, depth=depth, heads=heads, patch=patch, bottleneck=bottleneck,
        class_tokens=class_tokens, outputs=outputs, features=features, options=options, dtype=dtype, remat=remat,
        positions=("sincos", "rotary"), mlp="swiglu", norm="rms", qk_norm=True,
    )  # fmt: skip


def _check(shape, patch, width, depth, heads, outputs) -> None:
    if len(shape) < 2:
        raise ValueError(f"it needs data of shape (*space, C); got {shape}; for points use net 'mlp'")
    if min(width, depth, heads, outputs, *patch) < 1:
        raise ValueError(
            f"width, depth, heads, outputs and the patch's sides must be at least 1; "
            f"got {width}, {depth}, {heads}, {outputs}, {patch}"
        )
    if width % heads:
        raise ValueError(f"width must be a multiple of heads; got {width} and {heads}")


def _small(rngs: nnx.Rngs, *shape: int):
    return 0.02 * jax.random.normal(rngs.params(), shape)

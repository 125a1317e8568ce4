"""Convolutional networks with skips (Ronneberger et al. 2015), as diffusion models have them: one module, five rows.

    stem - [blocks, attention, halve] x levels - block, attention, block
         - [blocks with skips, attention, double] x levels - head

Every block's output on the way down is concatenated to a block's input on the way up.  Space has one, two or three
axes; channels are last.  What else differs between the published networks is a field of `Design`, and a row is a set of
its values: docs/networks.md has them side by side.  Names in a checkpoint read `down/0/blocks/1/conv1/kernel`.
"""

import inspect
import itertools
from collections.abc import Callable, Collection
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from .blocks import ENTRIES, REMAT, Attention, CrossAttention, ResBlock, conv, folded, normed, remat
from .conditions import tokens_of, with_image
from .design import Design
from .embeddings import FEATURES, Embedding
from .pyramids import DECODERS, ENCODERS, RESAMPLE
from .resampling import check, check_sides, double

# Over the axis `tensor` of a mesh: what is wide inside a block, by its columns and then by its rows.
SHARDING = (
    *((r"conv1/kernel", (None,) * (rank + 1) + ("tensor",)) for rank in (1, 2, 3)),
    *((r"conv2/kernel", (None,) * rank + ("tensor", None)) for rank in (1, 2, 3)),
    (r"(attention|cross)/\d+/out/kernel", ("tensor", None)),
    (r"(attention/\d+/qkv|cross/\d+/(q|kv))/kernel", (None, "tensor")),
)

# After which of a level's n blocks there is attention: of the two in the middle, and of those on the way up.
MIDDLE = {"both": lambda any_level: (0, 1) if any_level else (), "first": lambda any_level: (0,)}
UP = {"all": range, "last": lambda n: (n - 1,)}


class Level(nnx.Module):
    """The residual blocks of one size, attention after some of them; the way on, and what runs beside it."""

    def __init__(
        self, inputs: list[int], outputs: int, design: Design, *, attends: Collection[int], rank: int, rngs: nnx.Rngs,
        resample: Any = None, beside: Any = None,
    ):  # fmt: skip
        self.blocks = nnx.List([ResBlock(n, outputs, design, rank=rank, rngs=rngs) for n in inputs])
        self.attention = nnx.List([Attention(outputs, design, rngs=rngs) for _ in attends])
        reads = attends if design.tokens else ()
        self.cross = nnx.List([CrossAttention(outputs, design, rngs=rngs) for _ in reads])
        self.attends, self.remat, self.resample, self.beside = tuple(attends), design.remat, resample, beside

    def walk(self, i: int, x: Array, emb: Array, tokens: tuple[Array, ...], key) -> Array:
        x = remat(self.blocks[i], self.remat, x, emb, folded(key, i))
        if i in self.attends:
            at = self.attends.index(i)
            x = remat(self.attention[at], self.remat, x)
            x = remat(self.cross[at], self.remat, x, *tokens) if tokens else x
        return x

    def go_on(self, x: Array, emb: Array, key) -> Array:
        return remat(self.resample, self.remat, x, emb, folded(key, len(self.blocks)))


class UNet(nnx.Module):
    """(x [B, *S, C], level [B], cond) -> [B, *S, outputs C] float32.  cond is what `conditions.parts` reads."""

    def __init__(self, shape: tuple[int, ...], classes: int, design: Design, *, rngs: nnx.Rngs):
        self.design, rank, channels = design, len(shape) - 1, shape[-1]
        place: dict[str, Any] = dict(rank=rank, rngs=rngs)
        self.embed = Embedding(
            design.embedding_width * design.width, classes, vector=design.vector,
            channels=design.feature_width * design.width, features=design.features, options=dict(design.frequencies),
            early=design.early, dtype=design.dtype, rngs=rngs,
        )  # fmt: skip
        self.stem = conv(channels + design.image, design.width, dtype=design.dtype, **place)
        widths, attends = _levels(shape, design)
        self.down, skips, width = _down(channels + design.image, widths, attends, design, **place)
        middle = MIDDLE[design.middle](any(attends))
        self.middle = Level([width, width], width, design, attends=middle, **place)
        self.up = _up(channels * design.outputs, widths, attends, skips, design, **place)
        self.norm = normed(widths[0], design, rngs=rngs)
        self.head = conv(widths[0], channels * design.outputs, dtype=design.dtype, zero=True, **place)

    def __call__(self, x, level, cond=None, *, key=None):
        emb, design = self.embed(level, cond), self.design
        tokens = (tokens_of(cond, design.dtype) if design.tokens else None) or ()
        keys = (folded(key, i) for i in itertools.count())
        side = with_image(x, cond, design.image).astype(design.dtype)
        skips = [x := self.stem(side)]
        for stage in self.down:
            dropout = next(keys)
            for i in range(len(stage.blocks)):
                skips.append(x := stage.walk(i, x, emb, tokens, dropout))
            if stage.resample is not None:
                x = stage.go_on(x, emb, dropout)
                x, side = (x, side) if stage.beside is None else stage.beside(x, side)
                skips.append(x)
        dropout = next(keys)
        for i in range(2):
            x = self.middle.walk(i, x, emb, tokens, dropout)
        answer = None
        for stage in self.up:
            dropout = next(keys)
            for i in range(len(stage.blocks)):
                x = stage.walk(i, jnp.concatenate([x, skips.pop()], axis=-1), emb, tokens, dropout)
            if stage.resample is not None:
                answer = None if stage.beside is None else stage.beside(x, answer)
                x = stage.go_on(x, emb, dropout)
        last = self.head(self.norm(x, silu=True))
        return (last if answer is None else last + double(answer, design.taps)).astype(jnp.float32)


def _levels(shape: tuple[int, ...], design: Design) -> tuple[list[int], list[bool]]:
    """The width of every level, and whether it attends."""
    sizes = [shape[0] // 2**i for i in range(len(design.multipliers))]
    return [design.width * m for m in design.multipliers], [size in design.attention for size in sizes]


def _down(side: int, widths: list[int], attends: list[bool], design: Design, **place):
    """The levels on the way down, the width of every skip, and the width at the end."""
    levels, skips, width = nnx.List([]), [design.width], design.width
    beside = ENCODERS[design.encoder]
    for i, outputs in enumerate(widths):
        inputs, width = [width] + [outputs] * (design.blocks - 1), outputs
        way: dict[str, Any] = {}
        if i < len(widths) - 1:
            way["resample"] = RESAMPLE[design.resample][0](width, design, **place)
            way["beside"] = beside and beside(side, width, design, **place)
            side = way["beside"].gives if beside else side
        reached = range(design.blocks) if attends[i] else ()
        levels.append(Level(inputs, outputs, design, attends=reached, **way, **place))
        skips += [width] * (design.blocks + (i < len(widths) - 1))
    return levels, skips, width


def _up(answers: int, widths: list[int], attends: list[bool], skips: list[int], design: Design, **place):
    """The levels on the way up, which take the skips from the last to the first."""
    levels, width, beside = nnx.List([]), widths[-1], DECODERS[design.decoder]
    for i, outputs in reversed(list(enumerate(widths))):
        inputs = []
        for _ in range(design.blocks + 1):
            inputs, width = [*inputs, width + skips.pop()], outputs
        way: dict[str, Any] = {}
        if i > 0:
            way["resample"] = RESAMPLE[design.resample][1](width, design, **place)
            way["beside"] = beside and beside(width, answers, design, **place)
        reached = UP[design.up](design.blocks + 1) if attends[i] else ()
        levels.append(Level(inputs, outputs, design, attends=reached, **way, **place))
    return levels


def _checked(shape: tuple[int, ...], design: Design) -> Design:
    """The design with what it names looked up.  Raises ValueError, or TypeError, for what cannot be built."""
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            f"it needs data of shape (L, C), (H, W, C) or (D, H, W, C); got {shape}; for points use net 'mlp'"
        )
    d = design
    sizes = d.width, d.blocks, d.head_width, d.outputs, d.groups, d.group_width, d.feature_width, d.embedding_width
    if min(*sizes, *d.multipliers, len(d.multipliers)) < 1:
        raise ValueError(
            f"width, blocks, head_width, outputs, groups, group_width, feature_width, embedding_width and one or more "
            f"multipliers must be at least 1; got {', '.join(map(str, sizes))}, {d.multipliers}"
        )
    if min(d.vector, d.tokens, d.image, d.heads) < 0:
        raise ValueError(
            f"vector, tokens, image and heads must be at least 0; got {d.vector}, {d.tokens}, {d.image}, {d.heads}"
        )
    for kind, table in TABLES.items():
        if getattr(d, kind) not in table:
            raise ValueError(f"no {kind} '{getattr(d, kind)}'; known: {', '.join(table)}")
    check_sides(shape[:-1], len(d.multipliers) - 1)
    check(d.taps)
    if d.features in FEATURES:
        inspect.signature(FEATURES[d.features]).bind(None, None, **d.frequencies)
    if tuple(d.padding) not in ((0, 1), (1, 0), (1, 1)):
        raise ValueError(f"padding must be (0, 1), (1, 0) or (1, 1), to halve an even size; got {d.padding}")
    return d._replace(dtype=jnp.dtype(d.dtype), taps=tuple(d.taps))


TABLES = {
    "entry": ENTRIES, "middle": MIDDLE, "up": UP, "resample": RESAMPLE, "encoder": ENCODERS, "decoder": DECODERS,
    "remat": REMAT,
}  # fmt: skip


def row(name: str, about: str, **chosen: Any) -> Callable[..., UNet]:
    """A row of NETS, called (shape, classes, *, rngs, **options): options are the fields of Design, as `chosen`."""
    design = Design(**chosen)

    def make(shape: tuple[int, ...], classes: int, *, rngs: nnx.Rngs, **options: Any) -> UNet:
        return UNet(shape, classes, _checked(shape, design._replace(**options)), rngs=rngs)

    kind, fields = inspect.Parameter.KEYWORD_ONLY, inspect.signature(Design).parameters.values()
    options = [field.replace(kind=kind, default=getattr(design, field.name)) for field in fields]
    first = [field for field in inspect.signature(make).parameters.values() if field.name != "options"]
    make.__name__, make.__doc__ = name, about
    make.__signature__ = inspect.Signature([*first, *options], return_annotation=UNet)  # pyright: ignore
    return make


unet = row("unet", "FiLM in every block, attention at the sizes listed and in the middle if there is any.")

ddpm = row(
    "ddpm", "Ho et al. 2020, CIFAR-10: the embedding is added, one head, 32 groups.",
    width=128, multipliers=(1, 2, 2, 2), dropout=0.1, features="sinusoidal", frequencies=dict(offset=-1.0, last=True),
    feature_width=1, entry="add", group_width=1, eps=1e-6, middle="first", heads=1,
)  # fmt: skip

adm = row(
    "adm", "Dhariwal & Nichol 2021, ImageNet 64: FiLM, blocks that resample, heads of 64 at 32, 16 and 8.",
    width=192, multipliers=(1, 2, 3, 4), blocks=3, dropout=0.1, features="sinusoidal",
    frequencies=dict(offset=-1.0, cosine_first=True), feature_width=1, group_width=1, attention=(32, 16, 8),
    middle="first", resample="block",
)  # fmt: skip

SONG = dict(
    width=128, multipliers=(2, 2, 2), blocks=4, dropout=0.1, early=True, entry="add", eps=1e-6, middle="first",
    up="last", heads=1, resample="block", project=True, residual_scale=0.5**0.5,
)  # fmt: skip

ddpmpp = row(
    "ddpmpp", "DDPM++ (Song et al. 2021) for CIFAR-10 as in Karras et al. 2022: `ddpm` with scaled sums and larger.",
    features="sinusoidal", frequencies=dict(last=True), feature_width=1, **SONG,
)  # fmt: skip

ncsnpp = row(
    "ncsnpp", "NCSN++ (Song et al. 2021) for CIFAR-10 as in Karras et al. 2022: Fourier features, a residual pyramid.",
    features="normal", feature_width=2, encoder="residual", taps=(1, 3, 3, 1), **SONG,
)  # fmt: skip

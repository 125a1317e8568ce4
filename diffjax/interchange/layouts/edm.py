"""The networks of NVlabs/edm, SongUNet and DhariwalUNet, in its snapshots: named by the size that they work at.

A block there ends with its attention.  The filters of what resamples are stored there, and are options here.  SongUNet
adds sqrt(n) W[:, label] + b, n its classes, and b where there is none: a table here, whose null class is b.
"""

from collections.abc import Iterable

import numpy as np

from ..forms import (
    CONV,
    LINEAR,
    NORM,
    Form,
    Kind,
    Shape,
    by_head,
    each,
    flat,
    linear,
    pointwise,
    reordered,
    same,
    transposed,
    with_null,
)  # fmt: skip
from ..rules import Row
from .layout import Layout, Target, drawn, heads_of, listed, modules

BLOCK = {
    "norm1": ("norm0", NORM), "conv1": ("conv0", CONV), "film": ("affine", LINEAR), "norm2": ("norm1", NORM),
    "conv2": ("conv1", CONV), "skip": ("skip", CONV),
}  # fmt: skip
POINTWISE: Kind = {"kernel": ("weight", pointwise(2)), "bias": ("bias", flat)}
VECTOR: Kind = {"kernel": ("weight", linear)}
LABEL: Kind = {"embedding": ("weight", transposed(with_null(same)))}
FREQUENCIES = "map_noise.freqs"
OUTPUT = {"norm": NORM, "conv": CONV}
BESIDE = {"residual": "aux_residual", "skip": "aux_skip", "plain": ""}


def _scaled(arrays: list[np.ndarray], shape: Shape) -> np.ndarray:
    weight, bias = (array.astype(np.float64) for array in arrays)
    return np.concatenate([weight.T * weight.shape[1] ** 0.5 + bias, bias[None]]).astype(np.float32)


def _unscaled(array: np.ndarray) -> list[np.ndarray]:
    rows, bias = array[:-1].astype(np.float64), array[-1]
    return [((rows - bias).T / len(rows) ** 0.5).astype(np.float32), bias]


SONG_LABEL: Kind = {"embedding": (("weight", "bias"), Form(_scaled, _unscaled, plain=False))}


def rows(target: Target) -> list[Row]:
    blocks, early, sizes = target.net["blocks"], target.net["early"], _sizes(target)
    end = (f"dec.{sizes[0]}_aux_norm", f"dec.{sizes[0]}_aux_conv") if early else ("out_norm", "out_conv")
    found = [
        Row("embed/hidden", "map_layer0", LINEAR),
        Row("embed/out", "map_layer1", LINEAR),
        Row("embed/label", "map_label", SONG_LABEL if early else LABEL),
        Row("embed/project", "map_augment", VECTOR),
        Row("stem", f"enc.{sizes[0]}_conv", CONV),
        Row("norm", end[0], NORM),
        Row("head", end[1], CONV),
        *(row for j in range(2) for row in modules(f"middle/blocks/{j}", f"dec.{sizes[-1]}_in{j}", BLOCK)),
        *_attention(target, "middle/attention/0", f"dec.{sizes[-1]}_in0"),
    ]
    for i, size in enumerate(sizes):
        up = len(sizes) - 1 - i  # ours count the way up from the smallest size
        attends = (blocks,) if target.net["up"] == "last" else range(blocks + 1)
        found += _level(target, f"down/{i}", f"enc.{size}", blocks, range(blocks))
        found += _level(target, f"up/{up}", f"dec.{size}", blocks + 1, attends)
        if i:
            found += modules(f"down/{i - 1}/resample", f"enc.{size}_down", BLOCK)
            found += [Row(f"down/{i - 1}/beside/conv", f"enc.{size}_{BESIDE[target.net['encoder']]}", CONV)]
            found += modules(f"up/{up}/resample", f"dec.{sizes[i - 1]}_up", BLOCK)
            found += [Row(f"up/{up}/beside/{name}", f"dec.{size}_aux_{name}", k) for name, k in OUTPUT.items()]
    return found


def _sizes(target: Target) -> list[str]:
    """'32x32', '16x16', ..."""
    return [f"{n}x{n}" for n in (target.shape[0] // 2**i for i in range(len(target.net["multipliers"])))]


def _level(target: Target, ours: str, theirs: str, blocks: int, attends: Iterable[int]) -> list[Row]:
    found = [row for j in range(blocks) for row in modules(f"{ours}/blocks/{j}", f"{theirs}_block{j}", BLOCK)]
    for i, j in enumerate(attends):
        found += _attention(target, f"{ours}/attention/{i}", f"{theirs}_block{j}")
    return found


def _attention(target: Target, ours: str, theirs: str) -> list[Row]:
    """The three come together there, channel by channel of every head."""
    channels = target.leaves.get(f"{ours}/norm/scale")
    if channels is None:
        return []
    order = by_head(heads_of(channels[0], target.net), last=True)
    return [
        Row(f"{ours}/norm", f"{theirs}.norm2", NORM),
        Row(f"{ours}/qkv", f"{theirs}.qkv", each(POINTWISE, reordered, order)),
        Row(f"{ours}/out", f"{theirs}.proj", POINTWISE),
    ]


def fixed(target: Target) -> dict[str, np.ndarray]:
    """The filters of all that resamples, and the frequencies of the level if they were drawn."""
    taps, sizes, net, names = np.asarray(target.net["taps"], np.float32), _sizes(target), target.net, []
    for smaller, larger in zip(sizes[1:], sizes[:-1], strict=True):
        names += [
            f"{block}.{conv}" for block in (f"enc.{smaller}_down", f"dec.{larger}_up") for conv in ("conv0", "skip")
        ]
        names += {"residual": [f"enc.{smaller}_aux_residual"], "skip": [f"enc.{smaller}_aux_down"]}.get(
            net["encoder"], []
        )
        names += [f"dec.{larger}_aux_up"] if net["decoder"] == "skip" else []
    filters = {f"{name}.resample_filter": np.outer(taps, taps)[None, None] / taps.sum() ** 2 for name in names}
    return filters | listed(target, FREQUENCIES)


LAYOUT = Layout(
    rows, nets=("adm", "ddpmpp", "ncsnpp"), roots=("ema.model", "ema", "model"), fixed=fixed,
    facts=lambda said, arrays: drawn(arrays, FREQUENCIES),
)  # fmt: skip

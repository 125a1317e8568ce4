"""The transformers of facebookresearch/DiT and willisma/SiT: a bare state dict, or a training checkpoint's `ema`.

Positions are stored there, in float32, and computed here: they are compared and written again.  SiT's time runs from
noise to data, so its level is 1 - t and its velocity the negative of ours; half of what its last layer says is unused.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..forms import LINEAR, TABLE, Form, Kind, each, flat, patches, stacked
from ..rules import Row
from .layout import Arrays, Facts, Layout, Target

BLOCK = {
    "film": "adaLN_modulation.1", "attention/qkv": "attn.qkv", "attention/out": "attn.proj", "mlp/first": "mlp.fc1",
    "mlp/second": "mlp.fc2",
}  # fmt: skip

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # of the published sizes, by width


def rows(target: Target) -> list[Row]:
    return [
        Row("embed/hidden", "t_embedder.mlp.0", LINEAR),
        Row("embed/out", "t_embedder.mlp.2", LINEAR),
        Row("embed/label", "y_embedder.embedding_table", TABLE),
        Row("stem/linear", "x_embedder.proj", patched(target)),
        *(stack(target, f"blocks/{ours}", f"blocks.{{}}.{theirs}") for ours, theirs in BLOCK.items()),
        Row("film", "final_layer.adaLN_modulation.1", LINEAR),
        Row("head", "final_layer.linear", LINEAR),
    ]


def stack(target: Target, ours: str, *theirs: str, kind: Kind = LINEAR) -> Row:
    """A row of a layer of all blocks, and of several of each."""
    depth = depth_of(target)
    names = [template.format(i) for i in range(depth) for template in theirs]
    return Row(ours, lambda: names, each(kind, stacked, depth))


def depth_of(target: Target) -> int:
    return next(shape[0] for leaf, shape in target.leaves.items() if leaf.startswith("blocks/"))


def patched(target: Target) -> Kind:
    """The kind of the first layer, a strided convolution there."""
    patch, rank = target.net["patch"], len(target.shape) - 1
    sides = (patch,) * rank if isinstance(patch, int) else tuple(patch)
    return {"kernel": ("weight", patches(sides)), "bias": ("bias", flat)}


def fixed(target: Target) -> dict[str, np.ndarray]:
    """What row `sincos` of nets/positions.py computes, in double precision before it is rounded."""
    height, width = (size // target.net["patch"] for size in target.shape[:2])
    quarter = target.leaves["stem/linear/bias"][0] // 4
    frequencies = 1 / 10000 ** (np.arange(quarter) / quarter)
    angles = [np.outer(np.tile(np.arange(width), height), frequencies)]
    angles.append(np.outer(np.repeat(np.arange(height), width), frequencies))
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return {"pos_embed": np.concatenate(waves, axis=1)[None].astype(np.float32)}


def facts(said: Mapping[str, Any], arrays: Arrays) -> Facts:
    """All but the number of heads, which is that of the published size of this width."""
    kernel, head = arrays["x_embedder.proj.weight"], arrays["final_layer.linear.bias"]
    width, channels, patch = kernel.shape[0], kernel.shape[1], kernel.shape[-1]
    side = round(arrays["pos_embed"].shape[1] ** 0.5) * patch
    depth = 1 + max(int(name.split(".")[1]) for name in arrays if name.startswith("blocks."))
    net = dict(
        name="dit", width=width, depth=depth, patch=patch, outputs=head.shape[0] // (channels * patch**2),
        options=dict(cosine_first=True, scale=1000.0, offset=-1.0),
    )  # fmt: skip
    net |= {"heads": HEADS[width]} if width in HEADS else {}
    classes = arrays["y_embedder.embedding_table.weight"].shape[0] - 1
    return Facts(net, (side, side, channels), classes)


def sit_rows(target: Target) -> list[Row]:
    head = each(LINEAR, _first_half_negated, target.shape[-1])
    return [row._replace(kind=head) if row.ours == "head" else row for row in rows(target)]


def sit_facts(said: Mapping[str, Any], arrays: Arrays) -> Facts:
    found = facts(said, arrays)
    options = dict(cosine_first=True, scale=-1.0, offset=1.0)
    return found._replace(net={**found.net, "outputs": 1, "options": options})


def _first_half_negated(form: Form, channels: int) -> Form:
    """Of (position, half, channel) there, minus the first half: the second answers nothing."""

    def ours(arrays, shape):
        halves = arrays[0].reshape(-1, 2, channels, *arrays[0].shape[1:])
        return -form.ours([halves[:, 0].reshape(-1, *arrays[0].shape[1:])], shape)

    def theirs(array):
        (first,) = form.theirs(array)
        halves = np.zeros((len(first) // channels, 2, channels, *first.shape[1:]), first.dtype)
        halves[:, 0] = -first.reshape(-1, channels, *first.shape[1:])
        return [halves.reshape(-1, *first.shape[1:])]

    return Form(ours, theirs, plain=False)


LAYOUT = Layout(rows, nets=("dit",), roots=("ema", "model"), fixed=fixed, facts=facts)
SIT = LAYOUT._replace(rows=sit_rows, facts=sit_facts)

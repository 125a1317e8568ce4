"""Vision transformers: facebookresearch/dinov2's state dicts, and transformers' Dinov2Model and CLIP vision towers.

Of a whole CLIP the vision tower is read, and the token that masks patches in training is left aside.  Positions are of
the grid of training; how they are interpolated to others differs between the two DINOv2s, and is theirs here.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from diffjax.errors import InputError

from ..forms import LINEAR, NORM, Kind, absent, each, flat, joined, leading, linear, patches, same
from ..rules import Row
from .dit import stack
from .layout import Arrays, Facts, Layout, Target, view

HEAD = 64  # channels of a head in all published sizes

DINOV2 = {
    "norm1": "norm1", "attention/qkv": ["attn.qkv"], "attention/out": ["attn.proj"], "scale1": "ls1",
    "norm2": "norm2", "mlp/first": ["mlp.fc1"], "mlp/second": ["mlp.fc2"], "scale2": "ls2",
}  # fmt: skip
TRANSFORMERS_DINOV2 = {
    "norm1": "norm1", "attention/qkv": [f"attention.attention.{name}" for name in ("query", "key", "value")],
    "attention/out": ["attention.output.dense"], "scale1": "layer_scale1",
    "norm2": "norm2", "mlp/first": ["mlp.fc1"], "mlp/second": ["mlp.fc2"], "scale2": "layer_scale2",
}  # fmt: skip
TRANSFORMERS_CLIP = {
    "norm1": "layer_norm1", "attention/qkv": [f"self_attn.{letter}_proj" for letter in "qkv"],
    "attention/out": ["self_attn.out_proj"],
    "norm2": "layer_norm2", "mlp/first": ["mlp.fc1"], "mlp/second": ["mlp.fc2"],
}  # fmt: skip


class Names(NamedTuple):
    """What a DINOv2 calls its parts."""

    parts: Mapping[str, str | Sequence[str]]  # of a block
    gain: str
    root: str = ""  # of the tokens
    positions: str = "pos_embed"
    stem: str = "patch_embed.proj"
    blocks: str = "blocks"
    norm: str = "norm"
    offset: float = 0.1  # added to a grid before it is interpolated, where there are no registers


ORIGINAL = Names(DINOV2, "gamma")
PORTED = Names(
    TRANSFORMERS_DINOV2, "lambda1", root="embeddings", positions="position_embeddings",
    stem="embeddings.patch_embeddings.projection", blocks="encoder.layer", norm="layernorm", offset=0.0,
)  # fmt: skip


def blocks(target: Target, root: str, theirs: Mapping[str, str | Sequence[str]], *, gain: str = "") -> list[Row]:
    """Rows of all blocks; lists are linear layers, of which queries, keys and values may be three."""
    found = []
    for ours, names in theirs.items():
        kind: Kind = NORM if ours.startswith("norm") else {"gain": (gain, flat)}
        if not isinstance(names, str):
            kind = LINEAR if len(names) == 1 else each(LINEAR, joined, len(names))
        names = [names] if isinstance(names, str) else names
        found.append(stack(target, f"blocks/{ours}", *(f"{root}.{{}}.{name}" for name in names), kind=kind))
    return found


def stem(target: Target) -> Kind:
    side = target.net["patch"]
    return {"kernel": ("weight", patches((side, side))), "bias": ("bias", flat)}


def dinov2_rows(names: Names, target: Target) -> list[Row]:
    tokens: Kind = {
        "cls": ("cls_token", leading(2)), "positions": (names.positions, leading(1)),
        "registers": ("register_tokens", leading(1)),
    }  # fmt: skip
    return [
        Row("tokens", names.root, tokens),
        Row("stem/linear", names.stem, stem(target)),
        *blocks(target, names.blocks, names.parts, gain=names.gain),
        Row("norm", names.norm, NORM),
    ]


def transformers_clip_rows(target: Target) -> list[Row]:
    tokens: Kind = {"cls": ("class_embedding", same), "positions": ("position_embedding.weight", same)}
    return [
        Row("tokens", "vision_model.embeddings", tokens),
        Row("stem/linear", "vision_model.embeddings.patch_embedding", {**stem(target), "bias": ((), absent())}),
        Row("pre_norm", "vision_model.pre_layrnorm", NORM),
        *blocks(target, "vision_model.encoder.layers", TRANSFORMERS_CLIP),
        Row("norm", "vision_model.post_layernorm", NORM),
        Row("project", "visual_projection", {"kernel": ("weight", linear)}),
    ]


def without_mask(arrays: Arrays) -> Arrays:
    return view(arrays, {name: name for name in arrays if not name.endswith("mask_token")})


def vision_alone(arrays: Arrays) -> Arrays:
    """The vision tower and its projection; positions as numbers, which older files have, are left aside."""
    mine = [name for name in arrays if name.startswith(("vision_model.", "visual_projection."))]
    return view(arrays, {name: name for name in mine if not name.endswith("position_ids")})


def dinov2_facts(names: Names, said: Mapping[str, Any], arrays: Arrays) -> Facts:
    root = f"{names.root}." if names.root else ""
    tokens = f"{root}{names.positions}", f"{root}register_tokens"
    net = _size(arrays, said, f"{names.stem}.weight", *tokens, blocks=names.blocks)
    return Facts(net | {"offset": 0.0 if net["registers"] else names.offset})


def transformers_clip_facts(said: Mapping[str, Any], arrays: Arrays) -> Facts:
    said, root = said.get("vision_config", said), "vision_model.embeddings"
    net = _size(
        arrays, said, f"{root}.patch_embedding.weight", f"{root}.position_embedding.weight", "",
        blocks="vision_model.encoder.layers",
    )  # fmt: skip
    mlp = {"quick_gelu": "quick_gelu", "gelu": "erf_gelu"}.get(said.get("hidden_act", "quick_gelu"))
    if mlp is None:
        raise InputError(f"only CLIP with quick_gelu or gelu is read; its config.json says {said['hidden_act']}")
    project = _shape(arrays, "visual_projection.weight")[0]
    return Facts(net | dict(mlp=mlp, layer_scale=False, pre_norm=True, project=project, eps=1e-5))


def _size(
    arrays: Arrays, said: Mapping[str, Any], kernel: str, positions: str, registers: str, *, blocks: str
) -> dict[str, Any]:
    """What all of them say by the shapes of their arrays, and by config.json the number of heads."""
    (width, _, _, patch), count = _shape(arrays, kernel), _shape(arrays, positions)[-2]
    places = blocks.count(".") + 1
    depth = 1 + max((int(name.split(".")[places]) for name in arrays if name.startswith(f"{blocks}.")), default=-1)
    tokens = arrays[registers].shape[-2] if registers in arrays else 0
    return dict(
        name="vision_transformer", width=width, depth=depth, patch=patch, grid=round((count - 1) ** 0.5),
        heads=said.get("num_attention_heads", width // HEAD), registers=tokens,
        interpolation="antialiased" if tokens else "bicubic",
    )  # fmt: skip


def _shape(arrays: Arrays, name: str) -> tuple[int, ...]:
    if name not in arrays:
        raise InputError(f"the file lacks '{name}', by which its network is known; name the file of another layout")
    return arrays[name].shape


LAYOUT = Layout(
    partial(dinov2_rows, ORIGINAL), nets=("vision_transformer",), roots=("teacher.backbone", "model"),
    facts=partial(dinov2_facts, ORIGINAL), renamed=without_mask,
)  # fmt: skip
TRANSFORMERS = LAYOUT._replace(
    rows=partial(dinov2_rows, PORTED), roots=("dinov2",), facts=partial(dinov2_facts, PORTED)
)  # fmt: skip
CLIP = Layout(transformers_clip_rows, nets=("vision_transformer",), facts=transformers_clip_facts, renamed=vision_alone)

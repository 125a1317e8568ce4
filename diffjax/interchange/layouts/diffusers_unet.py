"""diffusers' UNet2DModel, in its names of today; attention's older ones are read too."""

import re
from collections.abc import Mapping
from typing import Any

from diffjax.errors import InputError

from ..forms import CONV, LINEAR, NORM, TABLE, each, joined, with_null
from ..rules import Row
from .layout import Arrays, Facts, Layout, Target, modules, view

BLOCK = {
    "norm1": ("norm1", NORM), "conv1": ("conv1", CONV), "film": ("time_emb_proj", LINEAR), "norm2": ("norm2", NORM),
    "conv2": ("conv2", CONV), "skip": ("conv_shortcut", CONV),
}  # fmt: skip
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.18


def rows(target: Target) -> list[Row]:
    found = [
        Row("embed/hidden", "time_embedding.linear_1", LINEAR),
        Row("embed/out", "time_embedding.linear_2", LINEAR),
        Row("embed/label", "class_embedding", each(TABLE, with_null)),
        Row("stem", "conv_in", CONV),
        Row("norm", "conv_norm_out", NORM),
        Row("head", "conv_out", CONV),
    ]
    beside = any("/beside/" in leaf for leaf in target.leaves)
    for ours, theirs, way in (("down", "down_blocks", "down"), ("up", "up_blocks", "up"), ("middle", "mid_block", "")):
        level = (rf"{ours}/(\d+)", f"{theirs}.{{0}}") if way else (ours, theirs)
        found += _level(*level, block=1 if way else 0)
        resnet = f"{theirs}.{{}}.resnet_{way}" if beside else f"{theirs}.{{}}.{way}samplers.0"
        found += modules(rf"{ours}/(\d+)/resample", resnet, BLOCK) if way else []
        found += [Row(rf"{ours}/(\d+)/resample", f"{theirs}.{{}}.{way}samplers.0.conv", CONV)] if way else []
    return [
        *found,
        Row(r"down/(\d+)/beside/conv", "down_blocks.{}.skip_conv", CONV),
        Row(r"up/(\d+)/beside/norm", "up_blocks.{}.skip_norm", NORM),
        Row(r"up/(\d+)/beside/conv", "up_blocks.{}.skip_conv", CONV),
    ]


def _level(ours: str, theirs: str, *, block: int) -> list[Row]:
    attention, there = rf"{ours}/attention/(\d+)", f"{theirs}.attentions.{{{block}}}"
    qkv = [f"{there}.to_{letter}" for letter in "qkv"]
    return [
        *modules(rf"{ours}/blocks/(\d+)", f"{theirs}.resnets.{{{block}}}", BLOCK),
        Row(f"{attention}/norm", f"{there}.group_norm", NORM),
        Row(f"{attention}/qkv", qkv, each(LINEAR, joined, 3)),
        Row(f"{attention}/out", f"{there}.to_out.0", LINEAR),
    ]


def renamed(arrays: Arrays) -> Arrays:
    older = "|".join(OLDER)
    change = lambda name: re.sub(rf"(?<=\.)({older})(?=\.(weight|bias)$)", lambda m: OLDER[m[1]], name)  # noqa: E731
    return view(arrays, {change(name): name for name in arrays})


def facts(said: Mapping[str, Any], arrays: Arrays) -> Facts:
    """The row and options that a config.json means; what no row can be is refused."""
    if said.get("_class_name") != "UNet2DModel":
        return Facts()
    widths, down, up = said["block_out_channels"], said["down_block_types"], said["up_block_types"]
    size, skips = said["sample_size"], any("Skip" in kind for kind in down)
    plain = all(kind in ("DownBlock2D", "AttnDownBlock2D") for kind in down)
    resnet = all(kind.startswith("Resnet") for kind in down) or said.get("downsample_type") == "resnet"
    attends = tuple(size // 2**i for i, kind in enumerate(down) if "Attn" in kind)
    if attends != tuple(size // 2**i for i, kind in enumerate(reversed(up)) if "Attn" in kind)[: len(attends)]:
        raise InputError(f"levels that attend on the way down, {attends}, must be those on the way up")
    if said["time_embedding_type"] != "positional" or not (plain or skips or resnet):
        raise InputError(f"no net here has the blocks {down} and a time embedding {said['time_embedding_type']!r}")
    entry = {"default": "add", "scale_shift": "film"}[said["resnet_time_scale_shift"]]
    head = said["attention_head_dim"]
    channels = said["in_channels"]
    net = dict(
        name="ddpm", width=widths[0], multipliers=tuple(w // widths[0] for w in widths), attention=attends,
        blocks=said["layers_per_block"], groups=said["norm_num_groups"] or 32, eps=said["norm_eps"], entry=entry,
        heads=0 if head else 1, head_width=head or 64, outputs=said["out_channels"] // channels,
        dropout=float(said.get("dropout", 0.0)), resample="block" if resnet or skips else "conv",
        frequencies=dict(
            scale=1000.0, offset=-1.0, cosine_first=said["flip_sin_to_cos"], last=bool(said["freq_shift"])
        ),
        padding=(1, 1) if said["downsample_padding"] else (0, 1),
    )  # fmt: skip
    if any(w % widths[0] for w in widths) or skips:
        raise InputError(f"the net of these widths {widths} and blocks {down} must be given in the config, as net=...")
    return Facts(net, (size, size, channels), said["num_class_embeds"] or 0)


LAYOUT = Layout(
    rows, nets=("unet", "ddpm", "adm", "ddpmpp", "ncsnpp"), renamed=renamed, facts=facts
)  # fmt: skip

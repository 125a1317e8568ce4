"""The UNets of openai/guided-diffusion, "ADM": flat numbers, one for each entry to the stack of skips."""

from ..forms import CONV, LINEAR, NORM, TABLE, Kind, by_head, each, flat, pointwise, reordered, with_null
from ..rules import Row
from .layout import Layout, Target, heads_of, modules

BLOCK = {
    "norm1": ("in_layers.0", NORM), "conv1": ("in_layers.2", CONV), "film": ("emb_layers.1", LINEAR),
    "norm2": ("out_layers.0", NORM), "conv2": ("out_layers.3", CONV), "skip": ("skip_connection", CONV),
}  # fmt: skip
POINTWISE: Kind = {"kernel": ("weight", pointwise(1)), "bias": ("bias", flat)}


def rows(target: Target) -> list[Row]:
    blocks, levels = target.net["blocks"], len(target.net["multipliers"])
    found = [
        Row("embed/hidden", "time_embed.0", LINEAR),
        Row("embed/out", "time_embed.2", LINEAR),
        Row("embed/label", "label_emb", each(TABLE, with_null)),
        Row("stem", "input_blocks.0.0", CONV),
        Row("norm", "out.0", NORM),
        Row("head", "out.2", CONV),
    ]
    for i in range(levels):
        first, last = 1 + i * (blocks + 1), i * (blocks + 1)
        for j in range(blocks):
            found += _block(target, f"down/{i}", j, f"input_blocks.{first + j}", at=j)
        found += _resample(f"down/{i}/resample", f"input_blocks.{first + blocks}.0", "op")
        for j in range(blocks + 1):
            found += _block(target, f"up/{i}", j, f"output_blocks.{last + j}", at=j)
        attends = any(leaf.startswith(f"up/{i}/attention/{blocks}/") for leaf in target.leaves)
        found += _resample(f"up/{i}/resample", f"output_blocks.{last + blocks}.{1 + attends}", "conv")
    found += modules("middle/blocks/0", "middle_block.0", BLOCK) + modules("middle/blocks/1", "middle_block.2", BLOCK)
    return found + _attention(target, "middle/attention/0", "middle_block.1")


def _block(target: Target, level: str, j: int, theirs: str, *, at: int) -> list[Row]:
    residual = modules(f"{level}/blocks/{j}", f"{theirs}.0", BLOCK)
    return residual + _attention(target, f"{level}/attention/{at}", f"{theirs}.1")


def _resample(ours: str, theirs: str, conv: str) -> list[Row]:
    """A residual block, or a convolution."""
    return [*modules(ours, theirs, BLOCK), Row(ours, f"{theirs}.{conv}", CONV)]


def _attention(target: Target, ours: str, theirs: str) -> list[Row]:
    """Queries, keys and values come together there, head by head."""
    channels = target.leaves.get(f"{ours}/norm/scale")
    if channels is None:
        return []
    qkv = each(POINTWISE, reordered, by_head(heads_of(channels[0], target.net)))
    return [
        Row(f"{ours}/norm", f"{theirs}.norm", NORM),
        Row(f"{ours}/qkv", f"{theirs}.qkv", qkv),
        Row(f"{ours}/out", f"{theirs}.proj_out", POINTWISE),
    ]


LAYOUT = Layout(rows, nets=("unet", "adm"), roots=("state_dict", "model"))

"""diffusers' DiTTransformer2DModel.

Every block there has an embedding of level and class of its own, and in a model that was converted from DiT all are
equal: they are one here, and those that differ are refused.
"""

from collections.abc import Mapping
from typing import Any

from diffjax.errors import InputError

from ..forms import LINEAR, TABLE, each, joined, repeated
from ..rules import Row
from .dit import depth_of, patched, stack
from .layout import Arrays, Facts, Layout, Target

EMBEDDING = {
    "embed/hidden": ("timestep_embedder.linear_1", LINEAR),
    "embed/out": ("timestep_embedder.linear_2", LINEAR),
    "embed/label": ("class_embedder.embedding_table", TABLE),
}
BLOCK = {
    "film": "norm1.linear", "attention/out": "attn1.to_out.0", "mlp/first": "ff.net.0.proj", "mlp/second": "ff.net.2"
}  # fmt: skip


def rows(target: Target) -> list[Row]:
    depth = depth_of(target)
    of_all = lambda theirs: [f"transformer_blocks.{i}.norm1.emb.{theirs}" for i in range(depth)]  # noqa: E731
    qkv = [f"transformer_blocks.{{}}.attn1.to_{letter}" for letter in "qkv"]
    return [
        *(Row(ours, of_all(theirs), each(kind, repeated, depth)) for ours, (theirs, kind) in EMBEDDING.items()),
        Row("stem/linear", "pos_embed.proj", patched(target)),
        stack(target, "blocks/attention/qkv", *qkv, kind=each(LINEAR, joined, 3)),
        *(stack(target, f"blocks/{ours}", f"transformer_blocks.{{}}.{theirs}") for ours, theirs in BLOCK.items()),
        Row("film", "proj_out_1", LINEAR),
        Row("head", "proj_out_2", LINEAR),
    ]


def facts(said: Mapping[str, Any], arrays: Arrays) -> Facts:
    if said.get("_class_name") != "DiTTransformer2DModel":
        return Facts()
    if (said["activation_fn"], said["norm_type"], said["attention_bias"]) != (
        "gelu-approximate",
        "ada_norm_zero",
        True,
    ):
        raise InputError("only a DiTTransformer2DModel of gelu-approximate, ada_norm_zero and attention_bias is read")
    heads, channels = said["num_attention_heads"], said["in_channels"]
    net = dict(
        name="dit", width=heads * said["attention_head_dim"], depth=said["num_layers"], heads=heads,
        patch=said["patch_size"], outputs=(said["out_channels"] or channels) // channels,
        options=dict(cosine_first=True, last=True, scale=1000.0, offset=-1.0),
    )  # fmt: skip
    return Facts(net, (said["sample_size"], said["sample_size"], channels), said["num_embeds_ada_norm"])


LAYOUT = Layout(rows, nets=("dit",), facts=facts)

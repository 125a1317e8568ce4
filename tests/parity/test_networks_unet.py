"""The rows of the convolutional networks beside diffusers' UNet2DModel: small, with random weights, in float32."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from diffjax.nets import NETS
from diffjax.nets.functional import functional

pytestmark = pytest.mark.usefixtures("single_precision")

TOLERANCE = 2e-5  # of answers of size 1
PLACES = [  # theirs, in the order of the replacements, and ours
    (r"^(down|up)_blocks\.(\d+)\.", r"\1.\2."), (r"^mid_block\.", "middle."),
    (r"\.resnets\.", ".blocks."), (r"\.attentions\.", ".attention."),
    (r"\.(down|up)samplers\.0\.(conv\.(?=weight|bias))?|\.resnet_(down|up)\.", ".resample."),
    (r"\.skip_(conv|norm)\.", r".beside.\1."), (r"\.group_norm\.", ".norm."), (r"\.to_out\.0\.", ".out."),
    (r"\.time_emb_proj\.", ".film."), (r"\.conv_shortcut\.", ".skip."), (r"^conv_in\.", "stem."),
    (r"^conv_norm_out\.", "norm."), (r"^conv_out\.", "head."), (r"^time_embedding\.linear_1\.", "embed.hidden."),
    (r"^time_embedding\.linear_2\.", "embed.out."), (r"^class_embedding\.", "embed.label."),
]  # fmt: skip


def ours_of(theirs):
    """Tensors by their names as a tree of ours: kernels last to first, q, k and v as one, a null class of nothing."""
    flat = {}
    for name, value in theirs.items():
        for pattern, replacement in PLACES:
            name = re.sub(pattern, replacement, name)
        path, kind = name.rsplit(".", 1)
        value = value.detach().numpy()
        if path == "embed.label":
            flat[path, "embedding"] = np.concatenate([value, np.zeros_like(value[:1])])
        elif kind == "weight" and value.ndim > 1:
            flat[path, "kernel"] = np.moveaxis(value, (0, 1), (-1, -2))
        else:
            flat[path, "scale" if kind == "weight" else kind] = value
    for path, kind in [key for key in flat if key[0].endswith(".to_q")]:
        whole = [flat.pop((path[:-1] + part, kind)) for part in "qkv"]
        flat[path.removesuffix("to_q") + "qkv", kind] = np.concatenate(whole, axis=-1)
    tree = {}
    for (path, kind), value in flat.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node.setdefault(last, {})[kind] = jnp.asarray(value, jnp.float32)
    return tree


def peer(types, widths, **options):
    """Their model with every parameter drawn anew: zeros and ones would hide what is connected to nothing."""
    down, up = types
    options = dict(sample_size=8, layers_per_block=1, attention_head_dim=None, freq_shift=0) | options
    torch.manual_seed(0)
    with torch.random.fork_rng():
        model = UNet2DModel(block_out_channels=widths, down_block_types=down, up_block_types=up, **options)
        model = model.to(torch.float32).eval()
        for name, parameter in model.named_parameters():
            spread = 0.5 if "norm" in name else 1 / np.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.2
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, spread)
    return model


PLAIN = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
ATTENTION = ("AttnDownBlock2D",) * 2, ("AttnUpBlock2D",) * 2
RESNET = ("ResnetDownsampleBlock2D",) * 2, ("ResnetUpsampleBlock2D",) * 2
SKIP = ("SkipDownBlock2D", "AttnSkipDownBlock2D"), ("AttnSkipUpBlock2D", "SkipUpBlock2D")
SMALL = dict(width=32, multipliers=(1, 2), blocks=1, groups=8)
BLOCKS = dict(resnet_time_scale_shift="scale_shift", attn_norm_num_groups=8)
CASES = {
    "ddpm": (
        peer_options := dict(types=PLAIN, widths=(32, 64), norm_num_groups=8, norm_eps=1e-6, downsample_padding=0),
        "ddpm", SMALL | dict(attention=(4,), frequencies=dict(scale=1.0, cosine_first=True)),
    ),
    "ddpm, other options": (
        peer_options | dict(
            downsample_padding=1, attention_head_dim=16, freq_shift=1, flip_sin_to_cos=False, norm_eps=1e-5,
            num_class_embeds=10, layers_per_block=2,
        ),
        "ddpm", SMALL | dict(
            attention=(4,), frequencies=dict(scale=1.0, last=True), padding=(1, 1), heads=0, head_width=16,
            eps=1e-5, blocks=2,
        ),
    ),
    "adm": (
        dict(
            types=ATTENTION, widths=(32, 64), norm_num_groups=8, downsample_type="resnet", upsample_type="resnet",
            attention_head_dim=16, num_class_embeds=10, **BLOCKS,
        ),
        "adm", SMALL | dict(attention=(8, 4), frequencies=dict(scale=1.0, cosine_first=True), head_width=16),
    ),
    "adm, attention in the middle": (
        dict(types=RESNET, widths=(32, 64), norm_num_groups=8, attention_head_dim=16, **BLOCKS),
        "adm", SMALL | dict(attention=(), frequencies=dict(scale=1.0, cosine_first=True), head_width=16),
    ),
    "ncsnpp": (
        dict(
            types=SKIP, widths=(32, 128), norm_num_groups=None, mid_block_scale_factor=2**0.5, norm_eps=1e-6,
        ),
        "ncsnpp", dict(
            width=32, multipliers=(1, 4), blocks=1, attention=(4,), features="sinusoidal", early=False,
            frequencies=dict(scale=1.0, cosine_first=True), feature_width=1, encoder="skip", decoder="skip",
        ),
    ),
}  # fmt: skip


def data():
    draw = np.random.default_rng(0)
    return draw.standard_normal((3, 8, 8, 3)).astype(np.float32), np.array([1, 400, 999]), np.array([3, 0, 9])


def both(case):
    theirs, name, options = CASES[case]
    model = peer(**theirs)
    classes = theirs.get("num_class_embeds", 0)
    net = functional(lambda rngs: NETS[name]((8, 8, 3), classes, rngs=rngs, dropout=0.0, **options))
    x, steps, label = data()
    answer = model(
        torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(steps), torch.from_numpy(label) if classes else None
    ).sample.permute(0, 2, 3, 1)
    apply = lambda params: net.apply(params, x, jnp.asarray(steps, jnp.float32), label if classes else None)  # noqa: E731
    return model, answer, apply, ours_of(model.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_diffusers(case):
    model, answer, apply, params = both(case)
    answer = answer.detach().numpy()
    assert answer.std() > 0.1
    error = np.abs(np.asarray(jax.jit(apply)(params)) - answer).max() / max(1, np.abs(answer).max())
    assert error <= TOLERANCE


@pytest.mark.parametrize("case", ["ddpm", "ncsnpp"])
def test_gradients_are_those_of_diffusers(case):
    model, answer, apply, params = both(case)
    mix = np.random.default_rng(1).standard_normal(answer.shape).astype(np.float32) / 10
    (torch.from_numpy(mix) * answer).sum().backward()
    theirs = ours_of({name: parameter.grad for name, parameter in model.named_parameters()})
    ours = jax.jit(jax.grad(lambda params: jnp.sum(mix * apply(params))))(params)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        assert np.abs(a - b).max() <= TOLERANCE * max(1, np.abs(b).max()), jax.tree_util.keystr(path)

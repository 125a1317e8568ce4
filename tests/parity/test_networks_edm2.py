"""EDM2's network beside a twin in PyTorch, in double precision, written from the equations (Karras et al. 2024).

The twin keeps weights as [outputs, inputs, ...] and channels second, walks the levels by itself, and spells the paper's
formulas out: features sqrt(2) cos(2 pi f level + phase), one-hot classes, weights w / |w| with an eps of 1e-4 beside
their root mean square, cosine attention head by head.
"""

import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peers import agree
from torch.nn import functional as F

from diffjax.nets import edm2
from diffjax.nets.functional import functional

CLASSES, HEAD = 5, 8


def normed(x, dims):
    return x / (1e-4 + x.square().mean(dims, keepdim=True).sqrt())


def layer(x, params, gain=1.0):
    kernel = torch.as_tensor(np.asarray(params["kernel"], np.float64))
    weight = kernel.movedim(-1, 0).movedim(-1, 1)  # [outputs, inputs, ...]
    weight = gain * normed(weight, tuple(range(1, weight.ndim))) / math.sqrt(weight[0].numel())
    if weight.ndim == 4:
        return F.conv2d(x, weight, padding=1)
    return x @ weight.T if x.ndim == 2 else F.conv2d(x, weight[:, :, None, None])


def silu(x):
    return F.silu(x) / 0.596


def mixed(a, b, t):
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def joined(a, b):
    """With t = 1/2: both halves of the sum of squares are equal."""
    total = a.shape[1] + b.shape[1]
    return torch.cat([a * math.sqrt(total / 2 / a.shape[1]), b * math.sqrt(total / 2 / b.shape[1])], dim=1)


def embedding(params, level, label, width):
    half = [NormalDist().inv_cdf((i + 0.5) / (width // 2)) for i in range(width // 2)]
    frequency, phase = torch.tensor(half * 2), torch.tensor([-math.pi / 2] * len(half) + [0.0] * len(half))
    features = math.sqrt(2) * torch.cos(2 * math.pi * level[:, None] * frequency + phase)
    one_hot = math.sqrt(CLASSES + 1) * F.one_hot(label, CLASSES + 1).double()
    return silu(mixed(layer(features, params["level"]), layer(one_hot, params["label"]), 0.5))


def attended(params, x):
    batch, channels, height, width = x.shape
    qkv = layer(x, params["qkv"]).reshape(batch, 3, channels // HEAD, HEAD, height * width)
    q, k, v = normed(qkv, 3).unbind(1)
    weights = torch.softmax(torch.einsum("bhdq,bhdk->bhqk", q, k) / math.sqrt(HEAD), dim=-1)
    h = torch.einsum("bhqk,bhdk->bhdq", weights, v).reshape(x.shape)
    return mixed(x, layer(h, params["out"]), 0.3)


def block(params, x, emb, encoder):
    skip = layer(x, params["skip"]) if "skip" in params else x
    if encoder:
        x = skip = normed(skip, 1)
    params = params["body"]
    h = layer(silu(x), params["conv1"])
    h = silu(h * (1 + layer(emb, params["film"], float(params["gain"])))[:, :, None, None])
    x = mixed(skip, layer(h, params["conv2"]), 0.3)
    x = attended(params["attention"], x) if "attention" in params else x
    return x.clamp(-256, 256)


def twin(params, x, level, label, *, width, levels, blocks):
    emb = embedding(params["embed"], level, label, width)
    x = layer(torch.cat([x, torch.ones_like(x[:, :1])], dim=1), params["stem"])
    down, up, skips = iter(params["down"].values()), iter(params["up"].values()), [x]
    for i in range(levels):
        if i > 0:
            skips.append(x := block(next(down), F.avg_pool2d(x, 2), emb, encoder=True))
        for _ in range(blocks):
            skips.append(x := block(next(down), x, emb, encoder=True))
    x = block(next(up), x, emb, encoder=False)
    for i in reversed(range(levels)):
        x = x if i == levels - 1 else F.interpolate(x, scale_factor=2, mode="nearest")
        x = block(next(up), x, emb, encoder=False)
        for _ in range(blocks + 1):
            x = block(next(up), joined(x, skips.pop()), emb, encoder=False)
    assert not skips and not list(down) and not list(up)
    return layer(x, params["head"], float(params["gain"]))


@pytest.mark.parametrize("multipliers, blocks, attention", [((1, 2), 2, (4,)), ((1, 2, 3), 1, (8, 2)), ((2,), 1, ())])
def test_the_network_is_its_twin(multipliers, blocks, attention):
    def make(rngs):
        options = dict(width=8, multipliers=multipliers, blocks=blocks, attention=attention, head_width=HEAD)
        return edm2((8, 8, 3), CLASSES, rngs=rngs, **options)

    net, draw = functional(make), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: draw.standard_normal(leaf.shape).astype(np.float32),
        jax.eval_shape(net.init, jax.random.key(0)),
    )
    x, level = draw.standard_normal((3, 8, 8, 3)).astype(np.float32), np.float32([-1.1, 0.2, 1.0])
    label = np.array([0, 3, CLASSES])
    apply = jax.jit(net.apply)
    ours = apply(jax.tree.map(jnp.asarray, params), x, level, label)
    rows = (torch.as_tensor(np.asarray(a, np.float64)) for a in (x.transpose(0, 3, 1, 2), level))
    theirs = twin(
        params, *rows, torch.as_tensor(label), width=8 * multipliers[0], levels=len(multipliers), blocks=blocks
    ).numpy().transpose(0, 2, 3, 1)  # fmt: skip
    scale = np.abs(theirs).max()
    assert scale > 0.1
    agree(f"edm2 {multipliers} {blocks} = its twin in PyTorch", ours / scale, theirs / scale, tolerance=2e-5)

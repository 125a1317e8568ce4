"""What only EDM2's network has: its blocks in double precision, its invariances, its sizes."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.ad_checkpoint import saved_residuals
from test_blocks import random_array, random_module

from diffjax.nets import edm2
from diffjax.nets.blocks import REMAT
from diffjax.nets.edm2 import LARGEST, Body, Decoder, Embedding, Encoder
from diffjax.nets.functional import functional
from diffjax.nets.magnitude import Layer
from diffjax.nets.resampling import double, halve

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"


# A block in numpy, from the paper's equations


def unit(x, axis=-1):
    return x / (1e-4 + np.sqrt(np.mean(x**2, axis=axis, keepdims=True)))


def layer(x, module):
    """A product or a convolution with weights of length 1 for every output."""
    kernel = np.asarray(module.kernel[...], np.float64)
    kernel = unit(kernel, tuple(range(kernel.ndim - 1))) / np.sqrt(np.prod(kernel.shape[:-1]))
    if kernel.ndim == 2:
        return x @ kernel
    padded, (height, width) = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), x.shape[1:3]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def silu(x):
    return x / (1 + np.exp(-x)) / 0.596


def mixed(a, b, t):
    return ((1 - t) * a + t * b) / np.sqrt((1 - t) ** 2 + t**2)


def body(x, straight, emb, block):
    scale = 1 + float(block.gain[...]) * layer(emb, block.film)
    h = layer(silu(layer(silu(x), block.conv1) * scale[:, None, None, :]), block.conv2)
    x = mixed(straight, h, 0.3)
    qkv = layer(x, block.attention.qkv).reshape(len(x), -1, 3, block.attention.heads, 4)
    q, k, v = np.moveaxis(unit(qkv), 2, 0)
    scores = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(4))
    h = np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(-1, keepdims=True), v).reshape(x.shape)
    return mixed(x, layer(h, block.attention.out), 0.3)


def boxes(x):
    return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))


def repeated(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def random_block(kind, inputs, outputs, **options):
    def make(rngs):
        options_of_all = dict(
            embedding=10, size=(3, 3), dropout=0.0, layer=partial(Layer, dtype=jnp.float32, rngs=rngs)
        )
        return kind(inputs, outputs, heads=2, **options_of_all, **options)

    return random_module(make)


def test_an_encoder_block():
    block = random_block(Encoder, 6, 8, resample=halve)
    x, emb = random_array(2, 4, 6, 6), random_array(2, 10, seed=2)
    entered = unit(layer(boxes(np.asarray(x, np.float64)), block.skip))
    wanted = body(entered, entered, np.asarray(emb, np.float64), block.body)
    np.testing.assert_allclose(jax.jit(block)(x, emb), wanted, rtol=1e-4, atol=1e-5)


def test_a_decoder_block():
    block = random_block(Decoder, 6, 8, resample=double)
    x, emb = random_array(2, 2, 3, 6), random_array(2, 10, seed=2)
    entered = repeated(np.asarray(x, np.float64))
    wanted = body(entered, layer(entered, block.skip), np.asarray(emb, np.float64), block.body)
    np.testing.assert_allclose(jax.jit(block)(x, emb), wanted, rtol=1e-4, atol=1e-5)


def test_a_block_is_clipped():
    block, emb = random_block(Body, 8, 8), random_array(2, 10)
    out = jax.jit(block)(random_array(2, 2, 2, 8), 1e4 * random_array(2, 2, 2, 8, seed=3), emb)
    assert float(jnp.abs(out).max()) == LARGEST


def test_the_embedding():
    def make(rngs):
        return Embedding(6, 8, classes=4, vector=3, layer=partial(Layer, dtype=jnp.float32, rngs=rngs))

    embed, level, vector = random_module(make), jnp.asarray([-0.4, 0.1, 0.7]), random_array(3, 3)
    frequencies = np.array([-0.967421566, 0.0, 0.967421566])  # the quantiles of N(0, 1) at 1/6, 1/2, 5/6
    angles = 2 * np.pi * np.asarray(level, np.float64)[:, None] * frequencies
    features = np.sqrt(2) * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    for label, cond in (([4, 4, 4], None), ([0, 4, 2], {"label": jnp.asarray([0, 4, 2]), "vector": vector})):
        h = mixed(layer(features, embed.level), layer(np.sqrt(5) * np.eye(5)[label], embed.label), 0.5)
        h = h if cond is None else mixed(h, layer(np.asarray(vector, np.float64), embed.vector), 0.5)
        np.testing.assert_allclose(jax.jit(embed)(level, cond), silu(h), rtol=1e-4, atol=1e-5)


# The whole network


def test_the_scale_of_no_weight_matters(small, randomised, names, compiled, batch):
    """Every output channel of every layer by another factor: the answer moves by the eps beside the norms alone."""
    params, draw = randomised(small("edm2")), np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(params)
    kernels = [name.endswith("kernel") for name in names(params)]
    factors = [
        np.exp(draw.uniform(0, 3, leaf.shape[-1:])) if k else 1.0 for k, leaf in zip(kernels, leaves, strict=True)
    ]
    scaled = [jnp.asarray(np.asarray(leaf) * f, jnp.float32) for f, leaf in zip(factors, leaves, strict=True)]
    one, other = (compiled("edm2")(jax.tree.unflatten(tree, some), *batch()) for some in (leaves, scaled))
    assert jnp.abs(one - other).max() < 1e-2 * jnp.abs(one).max()


def test_every_gradient_is_orthogonal_to_its_weights(small, randomised, names, grads):
    params, gradient = randomised(small("edm2")), grads("edm2")[0]
    for name, w, g in zip(names(params), jax.tree.leaves(params), jax.tree.leaves(gradient), strict=True):
        if name.endswith("kernel"):
            w, g = (np.asarray(a, np.float64).reshape(-1, a.shape[-1]) for a in (w, g))
            along = np.sum(g * w, axis=0) / np.linalg.norm(w, axis=0)
            assert np.linalg.norm(along) < 5e-3 * np.linalg.norm(g), name


def test_projection_puts_every_weight_on_its_sphere_and_leaves_the_gains(small, randomised, names):
    net = small("edm2")
    params = randomised(net)
    projected = jax.jit(net.project)(params)
    for name, before, after in zip(names(params), *map(jax.tree.leaves, (params, projected)), strict=True):
        if name.endswith("kernel"):
            lengths = np.linalg.norm(np.asarray(after).reshape(-1, after.shape[-1]), axis=0)
            np.testing.assert_allclose(lengths, np.sqrt(after.size / after.shape[-1]), rtol=1e-3)
        else:
            assert name.endswith("gain") and before == after


@pytest.mark.parametrize("gain", [0.0, 1.0])
def test_the_magnitude_of_white_input_arrives_at_the_output(gain, small, randomised, compiled, batch):
    """Up to what sums and joins of dependent terms add, and zeros beyond the border take away."""
    params = randomised(small("edm2"))
    for block in (*params["down"].values(), *params["up"].values()):
        block["body"]["gain"] = jnp.float32(gain)
    out = compiled("edm2")(params | {"gain": jnp.ones(())}, *batch())
    assert 0.5 < float(jnp.sqrt(jnp.mean(out**2))) < 1.5


def test_a_vector_is_read_where_it_is_given(jit, randomised):
    net = functional(lambda rngs: edm2((4, 2), 0, rngs=rngs, width=4, multipliers=(1,), blocks=1, vector=3))
    params, x, level = randomised(net), random_array(2, 4, 2), jnp.asarray([0.1, 0.2])
    told = jit(lambda vector: net.apply(params, x, level, {"vector": vector}))
    one, two = (told(random_array(2, 3, seed=i)) for i in (1, 2))
    assert jnp.abs(one - two).max() > 1e-4
    assert jax.eval_shape(net.apply, params, x, level).shape == x.shape


@pytest.mark.parametrize("shape", [(16, 3), (16, 8, 3), (4, 8, 4, 3)])
def test_any_rank(shape, small, abstract, batch):
    net = small("edm2", shape)
    x, level, label = batch(shape)
    assert jax.eval_shape(net.apply, abstract(net), x, level, label).shape == x.shape


@pytest.mark.parametrize(
    "chosen, where",
    [((), set()), ((8,), {"down/0", "up/0", "up/5", "up/6"}), ((4,), {"down/2", "up/0", "up/2", "up/3"})],
)
def test_attention_is_at_the_chosen_heights_and_between(chosen, where, small, abstract, names):
    found = names(abstract(small("edm2", attention=chosen)))
    assert {leaf.split("/body/attention/")[0] for leaf in found if "/attention/" in leaf} == where


def test_dropout_needs_a_key_and_follows_it(jit, small, randomised, compiled, batch):
    net = small("edm2", dropout=0.5)
    params, (x, level, label) = randomised(net), batch()
    draw = jit(lambda seed: net.apply(params, x, level, label, key=jax.random.split(jax.random.key(seed), len(x))))
    one, same, other = (draw(seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    for a, b in ((one, other), (one, compiled("edm2")(params, x, level, label))):
        assert np.abs(a - b).max(axis=(1, 2, 3)).min() > 1e-3


def test_less_is_kept_where_more_is_computed_again(small, randomised, batch):
    memory = {}
    for policy in REMAT:
        net = small("edm2", remat=policy)
        loss = lambda params, net=net: jnp.sum(net.apply(params, *batch()) ** 2)  # noqa: E731
        memory[policy] = sum(a.size for a, _ in saved_residuals(loss, randomised(net)))
    assert memory["blocks"] < 0.8 * memory["dots"] < 0.8 * memory["none"]


@pytest.mark.parametrize(
    "shape, options, sentence",
    [((10, 8, 1), dict(multipliers=(1, 1, 1)), "10 x 8 cannot be halved 2 times.*divisible by 4"),
     ((2,), {}, r"shape \(H, W, C\).*got \(2,\)"),
     ((16, 16, 1), dict(width=96, multipliers=(1,)), r"head_width=64 must divide .* \[96\]; change net.head_width"),
     ((16, 16, 1), dict(width=32, multipliers=(2, 3), attention=(16,)), r"head_width=64 must divide .* \[64, 96\]"),
     ((16, 16, 1), dict(width=64, remat="some"), "no remat 'some'; known: none, dots, blocks")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_sentence(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        functional(lambda rngs: edm2(shape, 0, rngs=rngs, **{"multipliers": (1,)} | options))


@pytest.mark.parametrize(
    "size, width, published",
    [("XS", 128, 124.7), ("S", 192, 280.2), ("M", 256, 497.8), ("L", 320, 777.5), ("XL", 384, 1119.3),
     ("XXL", 448, 1523.2)],
)  # fmt: skip
def test_the_sizes_of_the_paper(size, width, published):
    """In millions, of the denoiser for 64 x 64 x 4 and 1000 classes; and the documents say the same."""
    module = nnx.eval_shape(lambda: edm2((64, 64, 4), 1000, rngs=nnx.Rngs(0), width=width))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module))) / 1e6
    assert count == pytest.approx(published, abs=0.05)
    (row,) = re.findall(rf"^\| {size} +\| (\d+) +\| ([\d.]+) +\|", PAGE.read_text(), re.MULTILINE)
    assert row == (str(width), f"{count:.1f}")

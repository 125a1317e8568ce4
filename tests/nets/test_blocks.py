"""The pieces of networks against plain numpy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffjax.nets.blocks import Attention, CrossAttention, heads
from diffjax.nets.design import Design


def random_module(make, seed=0):
    """The module that make(rngs) constructs, with every parameter drawn anew."""
    graph, params = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    draw = np.random.default_rng(seed)
    return nnx.merge(
        graph, jax.tree.map(lambda leaf: jnp.asarray(draw.standard_normal(leaf.shape), leaf.dtype), params)
    )


def random_array(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def normed(norm, x):
    """The module's group norm of x [B, H, W, C], as [B, H W, C]."""
    x = np.asarray(x, np.float64)
    split = x.reshape(*x.shape[:3], norm.groups, -1)
    mean, var = split.mean((1, 2, 4), keepdims=True), split.var((1, 2, 4), keepdims=True)
    y = ((split - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * np.asarray(norm.scale) + np.asarray(norm.bias)
    return y.reshape(len(x), -1, x.shape[-1])


def linear(layer, x):
    return x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])


def attended(q, k, v, heads, mask=None):
    q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in (q, k, v))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    scores = scores if mask is None else np.where(mask[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)
    return mixed.reshape(*mixed.shape[:2], -1)


@pytest.mark.parametrize(
    "channels, chosen, number",
    [(8, dict(head_width=2), 4), (8, dict(head_width=64), 1), (10, dict(head_width=3), 2), (8, dict(heads=2), 2)],
)
def test_attention(channels, chosen, number):
    """The heads always divide the channels."""
    layer = random_module(lambda rngs: Attention(channels, Design(**chosen), rngs=rngs))
    x = random_array(2, 3, 2, channels)
    assert layer.heads == number
    qkv = np.split(linear(layer.qkv, normed(layer.norm, x)), 3, axis=-1)
    out = linear(layer.out, attended(*qkv, number))
    np.testing.assert_allclose(jax.jit(layer)(x), x + out.reshape(x.shape), rtol=1e-3, atol=1e-3)


def test_cross_attention():
    """Of three rows one reads all tokens, one some, and one none: that is as if they were not there."""
    layer = random_module(lambda rngs: CrossAttention(8, Design(heads=2, tokens=5), rngs=rngs))
    x, tokens = random_array(3, 3, 2, 8), random_array(3, 4, 5, seed=2)
    mask = np.array([[True] * 4, [True, False, True, False], [False] * 4])
    k, v = np.split(linear(layer.kv, np.asarray(tokens, np.float64)), 2, axis=-1)
    out = linear(
        layer.out, attended(linear(layer.q, normed(layer.norm, x)), k, v, 2, mask | (np.arange(3) == 2)[:, None])
    )
    found = jax.jit(layer)(x, tokens, jnp.asarray(mask))
    np.testing.assert_allclose(found[:2], x[:2] + out.reshape(x.shape)[:2], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found[2], x[2])


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        heads(8, Design(heads=3))

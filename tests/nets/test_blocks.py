"""The pieces of networks against plain numpy in double precision, and against Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffjax.nets.blocks import Attention, GroupNorm, _groups, double


def random_module(make, seed=0):
    """The module that make(rngs) constructs, with every parameter drawn anew."""
    graph, params = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    draw = np.random.default_rng(seed)
    return nnx.merge(
        graph, jax.tree.map(lambda leaf: jnp.asarray(draw.standard_normal(leaf.shape), leaf.dtype), params)
    )


def random_array(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def group_norm(x, groups, scale, bias):
    x = np.asarray(x, np.float64)
    split = x.reshape(*x.shape[:3], groups, -1)
    mean, var = split.mean((1, 2, 4), keepdims=True), split.var((1, 2, 4), keepdims=True)
    return ((split - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * np.asarray(scale) + np.asarray(bias)


@pytest.mark.parametrize("channels", [1, 6, 136])
def test_group_norm_and_film(channels):
    norm = random_module(lambda rngs: GroupNorm(channels, rngs=rngs))
    x, film = 2 * random_array(3, 4, 5, channels) + 1, random_array(3, 2 * channels, seed=2)
    plain = group_norm(x, _groups(channels), norm.scale[...], norm.bias[...])
    np.testing.assert_allclose(jax.jit(norm)(x), plain, rtol=2e-5, atol=2e-5)
    scale, shift = np.asarray(film)[:, None, None, :channels], np.asarray(film)[:, None, None, channels:]
    np.testing.assert_allclose(jax.jit(norm)(x, film), plain * (1 + scale) + shift, rtol=5e-5, atol=5e-5)


def test_group_norm_is_that_of_flax():
    ours = random_module(lambda rngs: GroupNorm(16, rngs=rngs))
    theirs = random_module(lambda rngs: nnx.GroupNorm(16, num_groups=4, epsilon=1e-5, rngs=rngs))
    theirs.scale[...], theirs.bias[...] = ours.scale[...], ours.bias[...]
    x = random_array(2, 4, 4, 16)
    np.testing.assert_allclose(jax.jit(ours)(x), jax.jit(theirs)(x), rtol=1e-5, atol=1e-5)


def test_group_norm_computes_in_float32():
    """Of a bfloat16 input only the result is rounded: sums of thousands of its values would be off by a percent."""
    norm, x = jax.jit(GroupNorm(4, rngs=nnx.Rngs(0))), (random_array(1, 64, 64, 4) + 3).astype(jnp.bfloat16)
    rough, fine = norm(x), norm(x.astype(jnp.float32))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(rough, np.float32), fine, rtol=2**-8, atol=1e-6)


def test_groups():
    """The most groups, up to 32, that divide the channels into at least four each."""
    for channels in range(1, 300):
        allowed = [g for g in range(1, 33) if channels % g == 0 and channels // g >= 4]
        assert _groups(channels) == max(allowed, default=1)


def test_double_is_repetition():
    x = random_array(2, 3, 5, 4)
    np.testing.assert_array_equal(double(x), np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))


@pytest.mark.parametrize("channels, head_width, heads", [(8, 2, 4), (8, 64, 1), (10, 3, 2)])
def test_attention(channels, head_width, heads):
    """Against plain numpy; the heads always divide the channels."""
    layer = random_module(lambda rngs: Attention(channels, head_width=head_width, dtype=jnp.float32, rngs=rngs))
    x = random_array(2, 3, 2, channels)
    assert layer.heads == heads

    h = group_norm(x, _groups(channels), layer.norm.scale[...], layer.norm.bias[...]).reshape(2, 6, channels)
    qkv = h @ np.asarray(layer.qkv.kernel[...], np.float64) + np.asarray(layer.qkv.bias[...])
    q, k, v = (a.reshape(2, 6, heads, -1) for a in np.split(qkv, 3, axis=-1))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(channels // heads)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v).reshape(2, 6, channels)
    out = mixed @ np.asarray(layer.out.kernel[...], np.float64) + np.asarray(layer.out.bias[...])
    np.testing.assert_allclose(jax.jit(layer)(x), x + out.reshape(x.shape), rtol=1e-3, atol=1e-3)

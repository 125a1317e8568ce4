"""Magnitudes, measured and derived; where weights are on their sphere and gradients along it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffjax.nets.magnitude import (
    EPS,
    Layer,
    mp_cat,
    mp_fourier,
    mp_silu,
    mp_sum,
    unit,
    unit_columns,
)  # fmt: skip
from diffjax.nets.resampling import double, halve

N = 400_000  # the mean square of so many normals is 1 with a standard deviation of sqrt(2 / N) = 0.2 %


def white(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def square(x):
    return float(jnp.mean(jnp.square(x)))


@pytest.mark.parametrize("shape, size", [((20_000, 20), ()), ((400, 50, 20), (3,)), ((40, 24, 24, 16), (3, 3)),
                                         ((10, 16, 16, 16, 8), (3, 3, 3))])  # fmt: skip
def test_a_layer_keeps_the_variance_of_white_input(shape, size):
    """Inside: a pixel at the border has fewer inputs, and zeros for the others."""
    layer = Layer(shape[-1], 24, size=size, dtype=jnp.float32, rngs=nnx.Rngs(0))
    inside = (slice(None), *[slice(1, -1)] * len(size))
    out = jax.jit(layer)(white(*shape))
    assert out.shape == (*shape[:-1], 24)
    assert square(out[inside]) == pytest.approx(1, abs=0.03)
    assert square(jax.jit(layer)(white(*shape), 3.0)[inside]) == pytest.approx(9, rel=0.03)


def test_silu_keeps_the_variance_of_normal_input():
    """E[silu(z)^2] by Gauss-Hermite quadrature: the paper's constant is its root to three digits."""
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    mean = np.sum(weights * (z / (1 + np.exp(-z))) ** 2) / np.sum(weights)
    assert np.sqrt(mean) == pytest.approx(0.596, abs=5e-4)
    assert square(mp_silu(white(N))) == pytest.approx(mean / 0.596**2, rel=0.02)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_sums_keep_the_variance_and_the_shares(t):
    a, b = white(N), white(N, seed=1)
    out = mp_sum(a, b, t)
    assert square(out) == pytest.approx(1, abs=0.02)
    shares = [float(jnp.mean(out * part)) for part in (a, b)]
    np.testing.assert_allclose(shares, np.array([1 - t, t]) / np.hypot(1 - t, t), atol=0.02)


@pytest.mark.parametrize("t", [0.3, 0.5])
def test_joined_channels_keep_the_variance_and_contribute_their_share_whatever_their_width(t):
    a, b = white(N // 8, 8), white(N // 8, 24, seed=1)
    out = mp_cat(a, b, t)
    assert square(out) == pytest.approx(1, abs=0.02)
    sums = [float(jnp.sum(jnp.square(part))) for part in (out[:, :8], out[:, 8:])]
    assert sums[1] / sums[0] == pytest.approx((t / (1 - t)) ** 2, rel=0.03)


def test_features_of_the_level_are_of_magnitude_one_at_every_level():
    levels = jnp.linspace(-2, 2, 41)
    features = mp_fourier(levels, 32)
    np.testing.assert_allclose(jnp.mean(jnp.square(features), axis=1), 1, rtol=1e-5)
    alike = np.asarray(features @ features.T) / 32  # its kernel is that of N(0, 1) frequencies: exp(-2 (pi d)^2)
    distance = np.asarray(levels[:, None] - levels[None, :])
    near = np.abs(distance) < 0.5
    np.testing.assert_allclose(alike[near], np.exp(-2 * (np.pi * distance[near]) ** 2), atol=0.05)


def test_unit():
    x = 7 * white(64, 12)
    rms = np.sqrt(np.mean(np.asarray(x, np.float64) ** 2, axis=-1, keepdims=True))
    np.testing.assert_allclose(unit(x), x / (rms + EPS), rtol=1e-5)
    assert unit(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    zero = jnp.zeros((2, 12))
    np.testing.assert_array_equal(unit(zero), zero)
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(unit(x)))(zero)).all()


def test_boxes():
    x = white(2, 4, 6, 3)
    means = np.asarray(x).reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(halve(x), means, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(double(x), np.asarray(x).repeat(2, axis=1).repeat(2, axis=2))
    assert halve(white(2, 4, 3)).shape == (2, 2, 3) and double(white(1, 2, 2, 2, 3)).shape == (1, 4, 4, 4, 3)
    np.testing.assert_array_equal(halve(double(x)), x)


def test_weights_start_on_their_sphere_and_projection_leads_back():
    layer = Layer(6, 5, size=(3, 3), dtype=jnp.float32, rngs=nnx.Rngs(0))
    kernel = layer.kernel[...]
    lengths = np.linalg.norm(np.asarray(kernel).reshape(-1, 5), axis=0)
    np.testing.assert_allclose(lengths, np.sqrt(3 * 3 * 6), rtol=2 * EPS)
    scales = jnp.arange(1.0, 6.0)[None, None, None, :]
    np.testing.assert_allclose(unit_columns(kernel * scales), kernel, rtol=2 * EPS)


def test_gradients_are_orthogonal_to_the_weights_of_every_output():
    """So that without a projection every step would make the weights longer, and the next steps smaller."""
    layer = Layer(6, 5, size=(3, 3), dtype=jnp.float32, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    x, mix = white(4, 6, 6, 6), white(4, 6, 6, 5, seed=1)
    grads = jax.grad(lambda state: jnp.sum(mix * nnx.merge(graph, state)(x)))(state)
    grad, kernel = (np.asarray(a, np.float64).reshape(-1, 5) for a in (grads["kernel"][...], layer.kernel[...]))
    cosine = np.sum(grad * kernel, axis=0) / np.linalg.norm(grad, axis=0) / np.linalg.norm(kernel, axis=0)
    assert np.abs(cosine).max() < 1e-3 and np.linalg.norm(grad, axis=0).min() > 0.1

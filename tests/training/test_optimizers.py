"""Learning rates, weight decay, clipping and the average, each against its formula."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffjax.training.optimizers import DECAYS, OPTIMIZERS, clipped, constant, cosine, decayed, inverse_sqrt, warmed


@pytest.mark.parametrize("name", DECAYS)
def test_decays_start_at_one_and_never_rise(name):
    values = np.asarray(DECAYS[name](100)(jnp.arange(120)))
    assert values[0] == 1 and np.diff(values).max() <= 1e-6 and values.min() >= 0


@pytest.mark.parametrize("k, value", [(0, 1), (25, 0.5 + math.sqrt(0.125)), (50, 0.5), (100, 0), (500, 0)])
def test_cosine(k, value):
    assert float(cosine(100)(jnp.int32(k))) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("k, value", [(0, 1), (100, 1), (200, 0.5**0.5), (400, 0.5), (10_000, 0.1)])
def test_inverse_square_root(k, value):
    """Karras et al. 2024, eq. 67: 1 / sqrt(max(k / after, 1))."""
    assert float(inverse_sqrt(9, after=100)(jnp.int32(k))) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("k, value", [(0, 0.05), (1, 0.1), (3, 0.2), (4, 0.2), (100, 0.2)])
def test_warm_up_is_linear_from_the_first_step(k, value):
    assert float(warmed(0.2, warmup=4, decay=constant(9))(jnp.int32(k))) == pytest.approx(value)
    assert float(warmed(0.2, warmup=0, decay=constant(9))(jnp.int32(k))) == pytest.approx(0.2)


def test_warm_up_and_decay_multiply():
    assert float(warmed(0.2, warmup=100, decay=cosine(100))(jnp.int32(49))) == pytest.approx(
        0.2 * 0.5 * (1 + math.cos(0.49 * math.pi)) / 2
    )


PARAMS = {
    "conv": {0: {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}},
    "norm": {"scale": jnp.full(2, 2.0)},
    "label": {"embedding": jnp.full((3, 2), 2.0)},
}


def test_weight_decay_acts_on_kernels_only():
    only = {"conv": {0: {"kernel": True, "bias": False}}, "norm": {"scale": False}, "label": {"embedding": False}}
    assert decayed(PARAMS) == only
    rule = OPTIMIZERS["adamw"](constant(9), weight_decay=0.25)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, PARAMS), rule.init(PARAMS), PARAMS)
    for update, moves in zip(jax.tree.leaves(updates), jax.tree.leaves(only), strict=True):
        np.testing.assert_allclose(update, -0.5 if moves else 0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_go_downhill_at_the_given_rate(name):
    """The first step of a rule that normalises its gradient is of the size of the rate."""
    rule = OPTIMIZERS[name](warmed(0.5, warmup=10, decay=constant(9)))
    params = {"bias": jnp.array([3.0, -2.0])}
    updates, _ = rule.update(params, rule.init(params), params)
    np.testing.assert_allclose(updates["bias"], [-0.05, 0.05], rtol=1e-4)


@pytest.mark.parametrize("norm, factor", [(1.0, 0.2), (10.0, 1.0), (0, 1.0)])
def test_clipping_is_of_the_global_norm(norm, factor):
    grads = {"a": jnp.array([3.0]), "b": jnp.array([0.0, 4.0])}
    rule = clipped(optax.sgd(1.0), norm=norm)
    updates, _ = rule.update(grads, rule.init(grads), grads)
    np.testing.assert_allclose(updates["a"], [-3 * factor], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [0, -4 * factor], rtol=1e-6)

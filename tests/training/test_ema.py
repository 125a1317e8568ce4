"""Averages against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.training.ema import AVERAGES, gamma_of, power, warmed


@pytest.mark.parametrize("step, decay, kept", [(0, 0.99, 0.1), (8, 0.99, 0.5), (8, 0.4, 0.4), (10**6, 0.99, 0.99)])
def test_the_warmed_average(step, decay, kept):
    average = {"a": jnp.array([1.0, 5.0]), "b": {0: jnp.zeros(())}}
    params = {"a": jnp.array([3.0, 5.0]), "b": {0: jnp.ones(())}}
    (found,) = warmed(decay).update((average,), params, jnp.int32(step))
    np.testing.assert_allclose(found["a"], [kept + 3 * (1 - kept), 5.0], rtol=1e-6)
    np.testing.assert_allclose(found["b"][0], 1 - kept, rtol=1e-6)


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_begin_as_copies_and_keep_their_dtype(name):
    average = {"warmed": lambda: warmed(0.9), "power": power}[name]()
    params = {"a": jnp.zeros(2, jnp.bfloat16)}
    start = average.init(params)
    assert all(tree["a"] is not params["a"] and (tree["a"] == params["a"]).all() for tree in start)
    after = average.update(start, {"a": jnp.ones(2, jnp.bfloat16)}, jnp.int32(0))
    assert len(after) == len(start) and {tree["a"].dtype for tree in after} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("std, gamma", [(0.10, 6.94), (0.05, 16.97)])  # Karras et al. 2024, section 3.1
def test_gamma_of_the_paper(std, gamma):
    found = gamma_of(std)
    assert found == pytest.approx(gamma, abs=5e-3)
    assert (found + 1) ** 0.5 / (found + 2) / (found + 3) ** 0.5 == pytest.approx(std, rel=1e-9)


def test_the_power_average_is_its_integral():
    """After n steps: sum_k (t_k^(gamma + 1) - t_(k-1)^(gamma + 1)) params_k / n^(gamma + 1)."""
    stds, n = (0.05, 0.2), 300
    params = np.random.default_rng(0).standard_normal(n)
    average = power(stds)

    @jax.jit
    def run(params):
        start = average.init({"w": jnp.zeros(())})
        add = lambda ema, step: (average.update(ema, {"w": params[step]}, step), None)  # noqa: E731
        return jax.lax.scan(add, start, jnp.arange(n))[0]

    with jax.enable_x64(True):
        found = run(jnp.asarray(params))
    t = np.arange(n + 1) / n
    for std, tree in zip(stds, found, strict=True):
        weights = np.diff(t ** (gamma_of(std) + 1))
        np.testing.assert_allclose(tree["w"], weights @ params, rtol=1e-9)
        spread = np.sqrt(weights @ (t[1:] - weights @ t[1:]) ** 2)
        assert spread == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize("bad", [0.0, 0.3, -0.1])
def test_bad_lengths(bad):
    with pytest.raises(ValueError, match="must lie in"):
        power((0.1, bad))
    with pytest.raises(ValueError, match="must lie in"):
        warmed(bad + 1.2 if bad >= 0 else bad)


def test_how_far_averages_reach():
    assert warmed(0.9).spans(10**6) == {"ema_steps": pytest.approx(10)}
    assert warmed(1.0).spans(0)["ema_steps"] == pytest.approx(1 / 0.9)
    assert power((0.05, 0.1)).spans(1000) == {"ema_0.05_steps": 50, "ema_0.1_steps": 100}

"""Averages rebuilt from snapshots, against those that were tracked, and against the error that the formula predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.training.ema import gamma_of, power
from diffjax.training.posthoc import Snapshot, coefficients, combine

STEPS, EVERY, STDS = 4096, 256, (0.05, 0.10)
SNAPSHOTS = [Snapshot(std, step) for step in range(EVERY, STEPS + 1, EVERY) for std in STDS]


def tracked(params, stds):
    """{Snapshot: average}, by the rule that training uses; params [STEPS, ...]."""
    average = power(stds)

    def add(ema, k):
        ema = average.update(ema, params[k], k)
        return ema, ema

    history = jax.lax.scan(add, average.init(jnp.zeros_like(params[0])), jnp.arange(STEPS))[1]
    return {
        Snapshot(s, n): h[n - 1] for s, h in zip(stds, history, strict=True) for n in range(EVERY, STEPS + 1, EVERY)
    }


def density(snapshot, tau):
    gamma = gamma_of(snapshot.std)
    return np.where(tau <= snapshot.steps, (gamma + 1) * tau**gamma / float(snapshot.steps) ** (gamma + 1), 0)


def test_inner_products_are_integrals():
    tau = (np.arange(400_000) + 0.5) / 400_000 * STEPS
    some, wanted = [SNAPSHOTS[i] for i in (0, 7, 20, -1)], Snapshot(0.15, STEPS)
    x, residual = coefficients(some, wanted)
    p = np.stack([density(s, tau) for s in some])
    left = density(wanted, tau) - x @ p
    assert x.sum() == pytest.approx(1, abs=1e-9)  # of all such combinations it is the nearest: no exchange improves it
    np.testing.assert_allclose(p @ left, (p @ left)[0], rtol=1e-3)
    assert residual == pytest.approx(np.linalg.norm(left) / np.linalg.norm(density(wanted, tau)), rel=1e-4)


@pytest.mark.parametrize("std", [0.03, 0.07, 0.15, 0.25])
def test_the_error_is_what_the_formula_predicts(std, x64):
    """Of white noise, |sum_k (w*_k - sum_i x_i w_ik) z_k| = residual |p*| / sqrt(1 step)."""
    noise = jax.random.normal(jax.random.key(0), (STEPS, 2000))
    history, wanted = tracked(noise, (*STDS, std)), Snapshot(std, STEPS)
    x, residual = coefficients(SNAPSHOTS, wanted)
    rebuilt = combine(x, (history[s] for s in SNAPSHOTS))
    gamma = gamma_of(std)
    size = (gamma + 1) / np.sqrt((2 * gamma + 1) * STEPS)  # |p*|
    error = float(jnp.sqrt(jnp.mean((rebuilt - history[wanted]) ** 2)))
    assert error == pytest.approx(residual * size, rel=0.15)
    assert error < 0.1 * float(jnp.std(history[wanted]))


def test_what_was_tracked_comes_back_and_smooth_courses_are_followed(x64):
    course = jnp.sin(jnp.linspace(0, 6, STEPS))[:, None] * jnp.asarray([[1.0, 2.0]])
    history = tracked(course, (*STDS, 0.08))
    for wanted in (Snapshot(0.05, STEPS), Snapshot(0.10, STEPS // 2)):
        known = [s for s in SNAPSHOTS if s.steps <= wanted.steps]
        x, residual = coefficients(known, wanted)
        assert residual < 1e-6
        np.testing.assert_allclose(combine(x, (history[s] for s in known)), history[wanted], rtol=1e-5)
    wanted = Snapshot(0.08, STEPS)
    x, _ = coefficients(SNAPSHOTS, wanted)
    np.testing.assert_allclose(combine(x, (history[s] for s in SNAPSHOTS)), history[wanted], rtol=2e-3)


def test_bad_input():
    with pytest.raises(ValueError, match="no snapshot"):
        coefficients([], Snapshot(0.1, 10))
    with pytest.raises(ValueError, match="later than the average wanted, of step 10"):
        coefficients([Snapshot(0.1, 20)], Snapshot(0.1, 10))

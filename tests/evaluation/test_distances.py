"""Distances between samples against closed forms, and the floor that chance leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffjax.evaluation.distances import DISTANCES, energy, floor, sliced_wasserstein, total_variation


def draws(seed, n=4000, shift=0.0, d=2):
    return jax.random.normal(jax.random.key(seed), (n, d)) + shift


@pytest.mark.parametrize("name", DISTANCES)
def test_equal_samples_are_at_distance_zero_and_shifted_ones_are_not(name):
    x = draws(0)
    assert float(DISTANCES[name](x, x)) == pytest.approx(0, abs=1e-3)
    near, far = (float(DISTANCES[name](x, x + shift)) for shift in (0.2, 0.8))
    assert 0.1 < near < far


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    """W_2 between a sample and itself moved by a vector is |u . vector| in the direction u; E|cos| = 2/pi."""
    x = draws(0, 200)
    moved = sliced_wasserstein(x, x + jnp.asarray([[1.0, 0.0]]), directions=4096)
    assert float(moved) == pytest.approx(2 / np.pi, rel=0.03)


def test_energy_is_scipys_in_one_dimension():
    x, y = np.asarray(draws(0, 300, d=1)), np.asarray(draws(1, 200, 0.5, d=1))
    theirs = stats.energy_distance(x[:, 0], y[:, 0])
    assert float(energy(jnp.asarray(x), jnp.asarray(y))) == pytest.approx(theirs, rel=1e-4)


def test_total_variation():
    assert float(total_variation(jnp.asarray([3.0, 1.0, 0.0]), jnp.asarray([0.5, 0.25, 0.25]))) == pytest.approx(0.25)


@pytest.mark.parametrize("name", DISTANCES)
def test_two_draws_of_one_law_lie_within_the_floor(name):
    low, high = floor(jax.random.key(0), lambda key: jax.random.normal(key, (1000, 2)), DISTANCES[name], repeats=40)
    fresh = [float(DISTANCES[name](draws(i, 1000), draws(i + 50, 1000))) for i in range(20)]
    assert 0 <= low < high and np.mean([d <= 1.2 * high for d in fresh]) > 0.8
    assert float(DISTANCES[name](draws(0, 1000), draws(1, 1000, 0.5))) > 2 * high

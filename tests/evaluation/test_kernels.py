"""Discrepancies against their definition by all pairs, and their expectation between equal laws."""

import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.evaluation import kernels, neighbours
from diffjax.evaluation.distances import energy
from diffjax.evaluation.kernels import gaussian, kid, median, mmd2, over_blocks, polynomial

FORMULAS = {
    "polynomial": (polynomial, lambda x, y: (x @ y / len(x) + 1) ** 3),
    "gaussian": (gaussian(0.7), lambda x, y: np.exp(-np.sum((x - y) ** 2) / (2 * 0.49))),
    "distance": (kernels.distance, lambda x, y: -np.sqrt(np.sum((x - y) ** 2))),
}


def draws(n, m, d=3, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


@pytest.mark.parametrize("pairs", [2**21, 40])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_mmd_is_its_sums_over_pairs(name, pairs, monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS", pairs)  # of which all in one chunk, or a few rows at a time
    kernel, formula = FORMULAS[name]
    x, y = draws(17, 12, shift=0.5)
    every = lambda a, b, same: np.mean(  # noqa: E731
        [formula(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
    )
    expected = every(x, x, True) + every(y, y, True) - 2 * every(x, y, False)
    assert mmd2(x, y, kernel) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", FORMULAS)
def test_without_bias_between_equal_laws(name):
    found = [mmd2(*draws(20, 30, seed=seed), FORMULAS[name][0]) for seed in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20
    biased = np.mean([np.mean(FORMULAS[name][0](x, x)) for x, _ in (draws(20, 1, seed=s) for s in range(50))])
    assert biased > 0 or name == "distance"


def test_the_error_of_the_mean_over_blocks():
    found = np.array([kid(*draws(200, 200, seed=seed), block=20) for seed in range(150)])
    assert abs(found[:, 0].mean()) < 3 * found[:, 0].std() / np.sqrt(150)
    assert np.sqrt(np.mean(found[:, 1] ** 2)) == pytest.approx(found[:, 0].std(), rel=0.2)


def test_one_block_is_the_mmd_of_all_and_has_no_error():
    x, y = draws(30, 40)
    value, error = kid(x, y)
    assert value == mmd2(x, y) and np.isnan(error)
    assert over_blocks(x, y, polynomial, block=20).value == pytest.approx(
        (mmd2(x[:15], y[:20]) + mmd2(x[15:], y[20:])) / 2
    )


def test_the_energy_distance_is_an_mmd():
    """Of all pairs, with the rows' distances to themselves, it is that of `distances`."""
    x, y = draws(25, 30, shift=1.0)
    own = lambda a: np.mean(kernels.distance(a, a))  # noqa: E731
    squared = own(x) + own(y) - 2 * np.mean(kernels.distance(x, y))
    assert np.sqrt(squared) == pytest.approx(float(energy(jnp.asarray(x), jnp.asarray(y))), rel=1e-5)


def test_the_median_distance():
    assert median(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2)


def test_no_matrix_of_all_pairs(monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS", 2**16)
    x, y = draws(3000, 3000)
    tracemalloc.start()
    mmd2(x, y, gaussian(1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 8 * 2**16 < 3000 * 3000  # bytes: a few chunks, an eighth of a matrix at most


def test_too_few_rows():
    with pytest.raises(InputError, match="1 and 5 rows; give at least 2"):
        mmd2(*draws(1, 5))
    with pytest.raises(InputError, match="3 and 2000 rows in 2 blocks; give at least 4"):
        kid(*draws(3, 2000))

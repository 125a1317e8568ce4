"""Precision, recall, density and coverage: constructed sets, and their definitions written out."""

import tracemalloc

import numpy as np
import pytest

from diffjax.evaluation import manifold, neighbours
from diffjax.evaluation.neighbours import others


def precision(x, y, k=3):
    return manifold.precision(x, y, others(y, k), k=k)


def recall(x, y, k=3):
    return precision(y, x, k)


def density(x, y, k=5):
    return manifold.density(x, y, others(y, k), k=k)


def coverage(x, y, k=5):
    return manifold.coverage(x, y, others(y, k), k=k)


ROWS = (precision, recall, density, coverage)


def by_definition(x, y, k):
    gap = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=-1)  # noqa: E731
    reach = lambda a: np.sort(gap(a, a), axis=1)[:, k]  # noqa: E731
    inside = gap(x, y) <= reach(y)  # [n, m]
    return {
        precision: inside.any(1).mean(),
        recall: (gap(y, x) <= reach(x)).any(1).mean(),
        density: inside.sum() / (k * len(x)),
        coverage: inside.any(0).mean(),
    }


@pytest.mark.parametrize("pairs", [2**21, 300])
@pytest.mark.parametrize("n, m, k", [(60, 60, 3), (40, 70, 5), (7, 90, 1)])
def test_equal_to_their_definitions(n, m, k, pairs, monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS", pairs)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 4)), 1.3 * rng.normal(size=(m, 4)) + 0.5
    for row, expected in by_definition(x, y, k).items():
        assert row(x, y, k=k) == pytest.approx(expected, rel=1e-12), row.__name__
    assert 0.05 < recall(x, y, k=k) < 1


def clouds(*centres, n=20, seed=0):
    """n rows close to each of these points on a line."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(-0.1, 0.1, size=(n, 1)) + centre for centre in centres])


@pytest.mark.parametrize(
    "ours, theirs, expected",
    [
        ((0,), (5,), (0, 0, 0, 0)),  # apart
        ((0,), (0, 5), (1, 0.5, None, 0.5)),  # a mode is missing
        ((0, 5), (0,), (0.5, 1, None, 1)),  # a mode too many
    ],
)
def test_modes_that_are_missing_or_too_many(ours, theirs, expected):
    x, y = clouds(*ours, n=40), clouds(*theirs, n=40, seed=1)
    for row, value in zip(ROWS, expected, strict=True):
        if value is not None:
            assert row(x, y) == pytest.approx(value, abs=0.1), row.__name__  # the edge of a cloud may be outside
    assert all(row(y, y) == 1 for row in (precision, recall, coverage))


def test_density_between_equal_laws_is_one():
    rng = np.random.default_rng(0)
    found = [density(*rng.normal(size=(2, 100, 3))) for _ in range(40)]
    assert abs(np.mean(found) - 1) < 3 * np.std(found) / np.sqrt(40)


def test_radii_of_points_on_a_line():
    near = others(np.array([[0.0], [1.0], [3.0], [7.0]]), 2)
    np.testing.assert_allclose(near, [[1, 3], [1, 2], [2, 3], [4, 6]])


def test_no_matrix_of_all_pairs(monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS", 2**16)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3000, 2))
    tracemalloc.start()
    for row in ROWS:
        row(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 8 * 2**16 < 3000 * 3000  # bytes: a few chunks

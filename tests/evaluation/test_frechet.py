"""The Frechet distance against its definition, and the bias that the extrapolation takes away."""

import numpy as np
import pytest
from scipy import linalg

from diffjax.evaluation.frechet import distance, extrapolate, line
from diffjax.evaluation.summary import Moments, summarise


def gaussian(mean, covariance):
    """Moments whose covariance is this one exactly."""
    return Moments(np.array(11.0), np.asarray(mean, float), 10 * np.asarray(covariance, float))


def sample(n, d, seed=0, rank=None):
    """Moments of n rows in a space of `rank` dimensions, with scales from 1 to 1e-3."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, rank or d)) * np.logspace(0, -3, rank or d) @ rng.normal(size=(rank or d, d))
    return summarise([(x + rng.normal(size=d), None)], groups=1).whole


def by_matrix_root(a, b):
    gap, product = a.mean - b.mean, a.covariance @ b.covariance
    return gap @ gap + np.trace(a.covariance + b.covariance - 2 * linalg.sqrtm(product).real)


def test_commuting_covariances():
    """Diagonal ones: |mu - nu|^2 + sum (sqrt a - sqrt b)^2."""
    a, b = gaussian([1, 2, 3], np.diag([4, 1, 0])), gaussian([1, 0, 3], np.diag([9, 1, 25]))
    assert distance(a, b) == pytest.approx(4 + 1 + 0 + 25, rel=1e-12)


def test_covariances_in_two_dimensions_that_do_not_commute():
    """In the plane tr (A B)^(1/2) = sqrt(tr A B + 2 sqrt(det A B))."""
    a, b = np.array([[2, 1], [1, 3]]), np.array([[5, -2], [-2, 1]])
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a + b) - 2 * root
    assert distance(gaussian([0, 0], a), gaussian([0, 0], b)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("d", [1, 3, 24])
def test_against_the_root_of_the_product(d):
    a, b = sample(200, d), sample(300, d, seed=1)
    assert distance(a, b) == pytest.approx(by_matrix_root(a, b), rel=1e-9)


def test_covariances_of_any_rank():
    """Within a subspace the distance is what it is without the rest of the space; between others, the definition."""
    a, b = sample(100, 3), sample(100, 3, seed=1)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(20, 20)))[0][:, :3]
    wide = [gaussian(turn @ one.mean, turn @ one.covariance @ turn.T) for one in (a, b)]
    assert distance(*wide) == pytest.approx(distance(a, b), rel=1e-11)
    few, many = sample(8, 12), sample(200, 12, seed=1)
    root = linalg.sqrtm(many.covariance)
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ few.covariance @ root), 0)).sum()
    gap = few.mean - many.mean
    expected = gap @ gap + np.trace(few.covariance + many.covariance) - 2 * overlap
    assert distance(few, many) == pytest.approx(expected, rel=1e-6)  # the root of rounding is in `expected`
    still = gaussian([3, 4], np.zeros((2, 2)))
    assert distance(still, gaussian([0, 0], np.eye(2))) == pytest.approx(25 + 2)


@pytest.mark.parametrize("rank", [4, 30])
def test_symmetric_to_the_bit_zero_to_itself_and_never_negative(rank):
    a, b = sample(50, 30, rank=rank), sample(60, 30, seed=1, rank=rank)
    assert distance(a, b) == distance(b, a) > 0
    for one in (a, b):
        assert 0 <= distance(one, one) < 1e-12 * np.trace(one.covariance)


def test_extrapolation_removes_the_bias():
    """Between equal laws the distance is 0 and that of n samples in 8 dimensions about 0.5, all of it bias."""
    rng = np.random.default_rng(0)
    law = gaussian(np.zeros(8), np.eye(8))
    draws = [summarise([(rng.normal(size=(150, 8)), None)]) for _ in range(60)]
    biased = np.array([distance(one.whole, law) for one in draws])
    free = np.array([line(one.moments, law) for one in draws])
    assert biased.mean() > 0.15
    assert abs(free.mean()) < 0.1 * biased.mean() + 3 * free.std() / np.sqrt(len(free))


def test_a_line_is_continued_to_zero(monkeypatch):
    """Where F is a line in 1 / n its end is found whatever the groups' sizes, and without an error."""
    monkeypatch.setattr("diffjax.evaluation.frechet.distance", lambda a, b: 3 + 40 / a.count)
    x = np.random.default_rng(0).normal(size=(333, 2))
    value, error = extrapolate(summarise([(x, None)], groups=10).moments, gaussian([0, 0], np.eye(2)))
    assert value == pytest.approx(3, rel=1e-12) and error < 1e-12


def test_the_error_of_the_extrapolation():
    """Far from the reference, where F is as good as linear in the moments: the deviation over many draws."""
    rng = np.random.default_rng(0)
    law = gaussian([3, 0], np.eye(2))
    found = np.array([extrapolate(summarise([(rng.normal(size=(200, 2)), None)]).moments, law) for _ in range(60)])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.3)  # the latter is known to 1/sqrt(120)
    assert abs(found[:, 0].mean() - 9) < 4 * found[:, 0].std() / np.sqrt(60)

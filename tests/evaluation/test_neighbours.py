"""Nearest neighbours in a stream, and what copies look like."""

import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.evaluation import neighbours
from diffjax.evaluation.neighbours import nearest, novelty


@pytest.mark.parametrize("pairs", [2**21, 50])
@pytest.mark.parametrize("sizes", [(100,), (1,) * 100, (30, 0, 70)])
@pytest.mark.parametrize("k", [1, 4])
def test_those_of_the_whole_set_however_it_arrives(sizes, k, pairs, monkeypatch):
    monkeypatch.setattr(neighbours, "PAIRS", pairs)
    rng = np.random.default_rng(0)
    queries, rows = rng.normal(size=(9, 3)) + 50, rng.normal(size=(100, 3)) + 50
    gaps = np.linalg.norm(queries[:, None] - rows[None], axis=-1)
    expected = np.argsort(gaps, axis=1)[:, :k]
    distances, which = nearest(queries, np.split(rows, np.cumsum(sizes)[:-1]), k=k)
    np.testing.assert_array_equal(which, expected)
    np.testing.assert_allclose(distances, np.take_along_axis(gaps, expected, axis=1), rtol=1e-10)


def test_copies_are_not_new():
    rng = np.random.default_rng(0)
    training, heldout, fresh = rng.normal(size=(3, 500, 4)).astype(np.float32)
    apart = lambda x: nearest(x, [training[:200], training[200:]])[0][:, 0]  # noqa: E731
    copies = training[:50] + 1e-4 * fresh[:50]
    assert novelty(apart(copies), apart(heldout)).max() < 0.01
    assert np.median(novelty(apart(fresh), apart(heldout))) == pytest.approx(1, abs=0.15)
    np.testing.assert_array_equal(nearest(copies, [training])[1][:, 0], np.arange(50))


def test_bad_input_is_a_sentence():
    with pytest.raises(InputError, match="3 nearest neighbours among 2 rows"):
        nearest(np.ones((1, 1)), [np.ones((2, 1))], k=3)
    with pytest.raises(InputError, match="held-out examples are training examples"):
        novelty(np.ones(3), np.zeros(3))

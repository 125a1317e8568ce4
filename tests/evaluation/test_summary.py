"""A summary is the same however its rows come, and says what metrics ask of it."""

import tracemalloc

import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.evaluation import summary as module
from diffjax.evaluation.summary import Moments, load, merge, save, summarise, without


def features(n=700, d=3, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 100, rng.dirichlet(np.ones(classes), size=n)


def batched(x, p, *sizes):
    """Batches of these sizes, and the rest."""
    starts = np.cumsum([0, *sizes])
    for start, end in zip(starts, [*starts[1:], len(x)], strict=True):
        yield x[start:end], None if p is None else p[start:end]


def same(a, b):
    for one, other in zip([*a.moments, *a.classes, a.rows], [*b.moments, *b.classes, b.rows], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("keep", [10_000, 50])
@pytest.mark.parametrize("sizes", [(1, 2, 300), (699,), (100,) * 6, (520, 10)])
def test_batching_changes_no_bit(sizes, keep):
    x, p = features()
    same(summarise(batched(x, p, *sizes), groups=4, keep=keep), summarise([(x, p)], groups=4, keep=keep))


@pytest.mark.parametrize("groups", [1, 4, 20])
def test_moments_are_those_of_all_rows(groups):
    x, p = features()
    summary = summarise(batched(x, p, 64, 300), groups=groups)
    np.testing.assert_allclose(summary.whole.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(summary.whole.covariance, np.cov(x.T), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(summary.classes.total.sum(0), p.sum(0), rtol=1e-13)
    np.testing.assert_allclose(summary.classes.information.sum(), (p * np.log(p)).sum(), rtol=1e-13)
    np.testing.assert_array_equal(summary.rows, x)
    assert summary.count == len(x) and np.ptp(summary.moments.count) <= len(x) // (128 * groups) + 1


def test_moments_of_many_rows_far_from_zero_are_exact():
    """E x^2 - (E x)^2 has no digit left at 1e9."""
    x = np.tile([[0.0], [2.0]], (5000, 1)) + 1e9
    assert summarise([(x, None)]).whole.covariance[0, 0] == pytest.approx(1 / (1 - 1 / len(x)), rel=1e-9)


def test_every_group_has_its_share_of_every_class_in_any_order():
    x = np.repeat(np.eye(5), 400, axis=0)  # ordered by class
    shares = summarise([(x, None)], groups=20).moments.mean
    np.testing.assert_allclose(shares, 0.2, atol=1e-12)
    cyclic = summarise([(np.tile(np.eye(5), (400, 1)), None)], groups=20).moments.mean
    assert cyclic.max() < 0.4  # a group of every twentieth would be of one class


def test_leaving_a_group_out_leaves_the_others():
    x, p = features(n=10)
    summary = summarise([(x, p)], groups=5)
    left = [without(summary, g) for g in range(5)]
    assert [one.count for one in left] == [8] * 5 and [len(one.rows) for one in left] == [8] * 5
    gone = [[tuple(row) for row in x if row not in one.rows] for one in left]
    assert sorted(sum(gone, [])) == sorted(map(tuple, x))
    for one in left:  # moments and rows are of the same samples
        np.testing.assert_allclose(one.whole.mean, one.rows.mean(0), rtol=1e-13)
        assert len(one.classes.information) == 4


def test_kept_rows_are_a_uniform_choice():
    """Each of 100 rows is kept with probability 1/4; over 400 of these streams its share has a deviation of 0.022."""
    x = np.arange(40_000.0).reshape(-1, 1)
    kept = summarise([(x, None)], groups=1, keep=10_000).rows[:, 0].astype(int)
    assert len(set(kept)) == 10_000
    parts = np.bincount(kept // 400, minlength=100) / 400
    assert abs(parts - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 400) and parts.std() > 0.01


def test_of_two_rows_either_is_kept():
    """The second with probability 1/2: over 400 streams its share has a deviation of 0.025."""
    first, second = np.zeros((1, 1)), np.ones((1, 1))
    kept = [module._choose(np.random.default_rng(seed), first, second, 1, 1)[0, 0] for seed in range(400)]
    assert abs(np.mean(kept) - 0.5) < 0.1


def test_groups_of_wide_features_are_fewer(monkeypatch):
    monkeypatch.setattr(module, "MEMORY", 10 * 8**2 * 8)
    assert [len(summarise([(np.eye(40, d), None)]).moments.count) for d in (4, 8, 9, 64)] == [20, 10, 5, 5]


def test_memory_does_not_grow_with_the_number_of_rows():
    def peak(n):
        tracemalloc.start()
        summarise(((np.ones((100, 8)), np.ones((100, 3))) for _ in range(n // 100)), keep=500)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak(100_000) < 1.1 * peak(10_000)


def test_save_and_load(tmp_path):
    x, p = features()
    summary = summarise([(x, p)], groups=4, keep=20)
    save(tmp_path / "a.npz", summary, network="inception", sizes=[32, 32])
    again, facts = load(tmp_path / "a.npz")
    same(summary, again)
    assert facts == {"network": "inception", "sizes": [32, 32]}
    save(tmp_path / "b.npz", summarise([(x.astype(np.float32), None)]))
    again, facts = load(tmp_path / "b.npz")
    assert again.classes is None and again.rows.dtype == np.float32 and facts == {}


def test_what_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    for name in ("none.npz", "cut.npz", "other.npz"):
        with pytest.raises(InputError, match=f"{name} holds no summary of samples"):
            load(tmp_path / name)


def test_merging_one_group_is_that_group():
    one = Moments(np.array([3.0]), np.array([[1.0, 2.0]]), np.eye(2)[None])
    for merged, field in zip(merge(one), one, strict=True):
        np.testing.assert_array_equal(merged, field[0])


@pytest.mark.parametrize(
    "batches, sentence",
    [
        ([], "no samples to summarise"),
        ([(np.ones((4, 2)), None), (np.ones((4, 3)), None)], r"\(3, None\).*after one with \(2, None\)"),
        ([(np.ones((4, 2)), None), (np.ones((4, 2)), np.ones((4, 2)))], r"\(2, 2\).*after one with \(2, None\)"),
        ([(np.ones((4, 2, 2)), None)], r"features of shape \(4, 2, 2\); expected \[b, d\]"),
        ([(np.ones((4, 2)), np.ones((3, 2)))], r"probabilities of shape \(3, 2\)"),
        ([(np.full((300, 2), np.nan), None), (np.ones((5000, 2)), None)], "300 of 5300 rows.*not finite"),
        ([(np.ones((4, 2)), np.full((4, 2), np.inf))], "4 of 4 rows.*not finite"),
    ],
)
def test_bad_features_are_a_sentence(batches, sentence):
    with pytest.raises(InputError, match=sentence):
        summarise(batches)

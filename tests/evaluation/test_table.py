"""The table of metrics: every row on summaries, its direction, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.evaluation import distances, kernels, manifold
from diffjax.evaluation.frechet import distance
from diffjax.evaluation.inception_score import score
from diffjax.evaluation.metrics import METRICS, caveats
from diffjax.evaluation.neighbours import others
from diffjax.evaluation.summary import Classes, summarise


def summary(n=120, d=3, seed=0, shift=0.0, classes=4, **options):
    """Normal rows about (shift, ..., shift); class probabilities the flatter the larger the shift."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + shift
    return summarise([(x, rng.dirichlet(np.full(classes, 0.2 + shift), size=n))], **options)


@pytest.mark.parametrize("name", METRICS)
def test_worse_samples_are_worse_in_the_direction_that_is_written(name):
    metric = METRICS[name]
    sign = {"smaller is better": 1, "larger is better": -1}
    (sign,) = (value for words, value in sign.items() if words in metric.__doc__)
    reference = summary(seed=1)
    values = np.array([sign * metric(summary(shift=shift), reference) for shift in (0, 1.5, 3)])
    assert (np.diff(values) > 0).all(), values


def test_rows_are_the_functions_of_their_files():
    ours, theirs = summary(n=90, shift=0.3), summary(seed=1)
    x, y = ours.rows, theirs.rows
    expected = {
        "frechet": distance(ours.whole, theirs.whole),
        "kid": kernels.mmd2(x, y),
        "mmd": kernels.mmd2(x, y, kernels.gaussian(kernels.median(y))),
        "energy": np.sqrt(kernels.mmd2(x, y, kernels.distance)),
        "sliced_wasserstein": float(distances.sliced_wasserstein(jnp.asarray(x), jnp.asarray(y))),
        "precision": manifold.precision(x, y, others(y, 3), k=3),
        "recall": manifold.precision(y, x, others(x, 3), k=3),
        "density": manifold.density(x, y, others(y, 5), k=5),
        "coverage": manifold.coverage(x, y, others(y, 5), k=5),
    }
    for name, value in expected.items():
        assert METRICS[name](ours, theirs) == pytest.approx(value, rel=1e-9), name
    assert set(METRICS) - set(expected) == {"frechet_infinity", "inception_score"}


def test_the_inception_score_of_certain_uniform_classes_is_their_number():
    p = np.tile(np.eye(8), (50, 1))
    one = summarise([(np.zeros((400, 1)), p)], groups=5)
    assert METRICS["inception_score"](one, one) == pytest.approx(
        8 * np.exp(-7 / 160), rel=0.01
    )  # 80 a split: (K - 1) / 2 n
    value, error = score(one.classes, one.moments.count, splits=1)
    assert value == pytest.approx(8, rel=1e-12) and np.isnan(error)
    same = summarise([(np.zeros((40, 1)), np.full((40, 8), 1 / 8))])
    assert METRICS["inception_score"](same, same) == pytest.approx(1, rel=1e-12)


def test_the_inception_score_is_the_mean_over_splits():
    """Each split is two groups of one sample: exp of the Jensen-Shannon divergence, written out."""
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=20)
    one = summarise([(p, p)], groups=20)
    order = np.argsort([[np.flatnonzero((p == row).all(1))[0] for row in one.classes.total]])[0]
    pairs = p[np.argsort(order)].reshape(10, 2, 3)
    middle = pairs.mean(1, keepdims=True)
    values = np.exp((pairs * np.log(pairs / middle)).sum((1, 2)) / 2)
    found = score(one.classes, one.moments.count)
    assert found == pytest.approx((values.mean(), values.std(ddof=1) / np.sqrt(10)), rel=1e-10)


def test_a_split_counts_as_much_as_it_has_rows():
    """One sample scores 1, three of three classes 3: together (1 + 3 * 3) / 4."""
    sums = Classes(np.array([[1.0, 0, 0], [1, 1, 1]]), np.zeros(2))
    assert score(sums, np.array([1.0, 3])).value == pytest.approx(2.5, rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"inception_score"}))
def test_too_few_samples_and_other_features_are_a_sentence(name):
    enough = summary()
    needed = {"frechet_infinity": 8, "sliced_wasserstein": 1}
    needed |= dict.fromkeys(("precision", "recall"), 4) | dict.fromkeys(("density", "coverage"), 6)
    n = needed.get(name, 2)
    METRICS[name](summary(n=n, groups=4), enough)  # just enough
    if n > 1:
        with pytest.raises(InputError, match=rf"{name} (of|from) {n - 1} samples .*need (at least )?{n} "):
            METRICS[name](summary(n=n - 1, groups=4), enough)
    with pytest.raises(InputError, match="5 features beside a reference of 3; summarise both with one network"):
        METRICS[name](summary(d=5), enough)


def test_what_else_is_refused():
    without = summarise([(np.ones((9, 2)), None)])
    with pytest.raises(InputError, match="without class probabilities"):
        METRICS["inception_score"](without, without)
    with pytest.raises(InputError, match="inception_score of 19 samples in 20 groups"):
        METRICS["inception_score"](summary(n=19), without)
    with pytest.raises(InputError, match="most of whose rows are equal"):
        METRICS["mmd"](without, without)
    with pytest.raises(InputError, match="frechet_infinity from 120 samples in 1 groups"):
        METRICS["frechet_infinity"](summary(groups=1), summary())


def test_different_numbers_in_one_dimension():
    """The root of what is under the steps, and 0 between samples and their copies.

    {0, 2} and {0, 1, 5}, in sixths: 0 0 0 2 2 2 and 0 0 1 1 5 5.
    """
    halves, thirds = jnp.asarray([[0.0], [2]]), jnp.asarray([[5.0], [0], [1]])
    assert float(distances.sliced_wasserstein(halves, thirds)) == pytest.approx(np.sqrt(20 / 6), rel=1e-6)
    x, y = jnp.zeros((1, 1)), jnp.arange(4.0)[:, None]
    assert float(distances.sliced_wasserstein(x, y)) == pytest.approx(np.sqrt(14 / 4), rel=1e-6)
    assert float(distances.sliced_wasserstein(y, jnp.repeat(y, 3, axis=0))) == pytest.approx(0, abs=1e-6)


def test_moments_are_of_all_rows_and_others_of_those_kept():
    few, reference = summary(keep=3), summary(seed=1)
    assert METRICS["frechet"](few, reference) == METRICS["frechet"](summary(), reference)
    with pytest.raises(InputError, match="precision of 3 samples and 120 reference rows; need at least 4"):
        METRICS["precision"](few, reference)


def test_caveats_say_what_the_numbers_rest_on():
    assert caveats(summary(), summary()) == []
    found = caveats(summary(n=3), summary(keep=50))
    assert len(found) == 2 and "3 rows of 3 features (samples)" in found[0] and "50 of 120 rows" in found[1]

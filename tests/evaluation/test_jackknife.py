"""Intervals cover what they are for, in simulations where it is known."""

import numpy as np
import pytest
from scipy import stats

from diffjax.errors import InputError
from diffjax.evaluation.jackknife import jackknife, reach, standard_error
from diffjax.evaluation.metrics import METRICS
from diffjax.evaluation.summary import summarise

N, D, REPEATS = 100, 6, 120
# Without a group, points of a set that were covered from there alone are not: a spread that is the larger the
# more of them there are.  So these two cover more often than they say.
CAUTIOUS = {"coverage", "recall"}


def draw(rng, groups=20):
    x = rng.normal(size=(N, D))
    return summarise([(1.2 * x + 0.3, np.exp(x) / np.exp(x).sum(1, keepdims=True))], groups=groups)


@pytest.mark.parametrize(
    "name", ["frechet", "kid", "energy", "precision", "recall", "density", "coverage", "inception_score"]
)
def test_intervals_cover_the_average_over_draws(name):
    """95 % of them, within three deviations of a binomial share; those of narrower ones, 60 %, too."""
    rng = np.random.default_rng(0)
    metric = METRICS[name]
    reference = summarise([(rng.normal(size=(N, D)), None)], groups=1)
    average = np.mean([metric(draw(rng), reference) for _ in range(400)])
    found = np.array([jackknife(metric, draw(rng), reference)["interval"] for _ in range(REPEATS)])
    wide, middle, twenty = np.diff(found).ravel() / 2, found.mean(1), np.arange(20.0)
    for level in (0.95, 0.6):
        shrunk = wide * reach(twenty, level) / reach(twenty)
        covered = np.mean(abs(middle - average) <= shrunk)
        slack = 3 * np.sqrt(level * (1 - level) / REPEATS)
        assert level - slack <= covered
        assert name in CAUTIOUS or covered <= level + slack


def test_the_error_of_a_mean_is_the_textbooks():
    """The jackknife with a sample a group is s / sqrt(n), exactly."""
    x = np.random.default_rng(0).normal(size=(30, 1))
    summary = summarise([(x, None)], groups=30)
    found = jackknife(lambda one, _: float(one.whole.mean[0]), summary, summary, level=0.9)
    expected = stats.t.interval(0.9, 29, x.mean(), x.std(ddof=1) / np.sqrt(30))
    np.testing.assert_allclose(found["interval"], expected, rtol=1e-12)
    assert standard_error([1.0, 1.0, 1.0]) == 0


@pytest.mark.parametrize("n, groups", [(N, 1), (3, 20)])
def test_no_interval_from_too_few_groups(n, groups):
    few = summarise([(np.ones((n, 2)), None)], groups=groups)
    with pytest.raises(InputError, match=f"an interval from {n} samples in {groups} groups; need 2 groups, none empty"):
        jackknife(METRICS["frechet"], few, few)

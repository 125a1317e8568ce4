"""Metrics beside torch-fidelity 0.4.0 and clean-fid 0.1.35, on the same random features.

Both import torchvision for their networks.  Their metrics do without, so each package is entered past its own
__init__, and what it takes from its networks' files is nothing.
"""

import importlib
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from peers import ERRORS

from diffjax.evaluation import kernels, manifold
from diffjax.evaluation.frechet import distance
from diffjax.evaluation.inception_score import score
from diffjax.evaluation.neighbours import others
from diffjax.evaluation.summary import summarise

REL = 1e-6


class _Nothing(types.ModuleType):
    """A module that has every name."""

    __all__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def enter(package, module, *without):
    """A module of a package whose __init__, and the modules `without`, are not run."""
    if find_spec(package) is None:
        pytest.skip(f"no {package}: `make parity` installs it")
    (path,) = find_spec(package).submodule_search_locations
    names = [package, *(f"{package}.{name}" for name in without)]
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: _Nothing(name) for name in names})
    sys.modules[package].__path__ = [path]
    found = importlib.import_module(f"{package}.{module}")
    for name, old in before.items():
        sys.modules.pop(name) if old is None else sys.modules.update({name: old})
    return found


def fidelity(metric):
    return enter("torch_fidelity", f"metric_{metric}", "utils")


def features(n=300, m=250, d=24):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) @ mix + 0.3, 1.2 * rng.normal(size=(m, d)) @ mix


def agree(case, ours, theirs):
    ERRORS[case] = error = float(np.max(np.abs(np.subtract(ours, theirs)) / np.abs(theirs)))
    assert error <= REL, f"{case}: {ours} beside {theirs}"


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # clean-fid's call of scipy
@pytest.mark.parametrize("n", [300, 20])  # of rank 24, and 19
def test_frechet(n):
    x, y = features(n)
    ours = distance(*(summarise([(one, None)]).whole for one in (x, y)))
    mean, covariance = zip(*((one.mean(0), np.cov(one, rowvar=False)) for one in (x, y)), strict=True)
    statistics = [{"mu": mu, "sigma": sigma} for mu, sigma in zip(mean, covariance, strict=True)]
    fid = fidelity("fid")
    agree(
        f"frechet, {n} rows: torch-fidelity", ours, fid.fid_statistics_to_metric(*statistics, False)[fid.KEY_METRIC_FID]
    )
    clean = enter("cleanfid", "fid", "utils", "features", "resize")
    agree(f"frechet, {n} rows: clean-fid", ours, clean.frechet_distance(mean[0], covariance[0], mean[1], covariance[1]))


def test_kid():
    """With one subset of all rows both are the unbiased MMD^2; over many subsets theirs is as much on average."""
    x, y = features(250, 250)
    ask = lambda size, subsets, **options: fidelity("kid").kid_features_to_metric(  # noqa: E731
        *map(torch.from_numpy, (x, y)), kid_subsets=subsets, kid_subset_size=size, verbose=False, **options
    )
    mean, deviation = "kernel_inception_distance_mean", "kernel_inception_distance_std"
    agree("kid: torch-fidelity", kernels.kid(x, y).value, ask(250, 1)[mean])
    rbf = dict(kid_kernel="rbf", kid_kernel_rbf_sigma=2.0)
    agree("mmd, gaussian: torch-fidelity", kernels.mmd2(x, y, kernels.gaussian(2.0)), ask(250, 1, **rbf)[mean])
    many = ask(50, 200)
    for value in (kernels.kid(x, y).value, kernels.kid(x, y, block=50).value):
        assert abs(value - many[mean]) < 3 * many[deviation] / np.sqrt(5)  # as if of five subsets: they share rows
    clean = enter("cleanfid", "fid", "utils", "features", "resize")
    agree("kid: clean-fid", kernels.kid(x, y).value, clean.kernel_distance(y, x, num_subsets=1))


def test_inception_score():
    logits = 2 * np.random.default_rng(0).normal(size=(200, 7))
    p = torch.softmax(torch.from_numpy(logits), 1).numpy()
    whole = summarise([(logits, p)])
    theirs = fidelity("isc").isc_features_to_metric(torch.from_numpy(logits), splits=1)
    agree("inception score, one split: torch-fidelity", score(whole.classes, whole.moments.count, splits=1).value,
          theirs["inception_score_mean"])  # fmt: skip
    parts = [summarise([(part, q)], groups=1) for part, q in zip(np.split(logits, 5), np.split(p, 5), strict=True)]
    found = [score(one.classes, one.moments.count).value for one in parts]
    theirs = fidelity("isc").isc_features_to_metric(torch.from_numpy(logits), splits=5, shuffle=False)
    agree("inception score, five splits: torch-fidelity", [np.mean(found), np.std(found)], list(theirs.values()))


@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_recall(k):
    x, y = features()
    theirs = fidelity("prc").prc_features_to_metric(*map(torch.from_numpy, (x, y)), prc_neighborhood=k, verbose=False)
    ours = [manifold.precision(x, y, others(y, k), k=k), manifold.precision(y, x, others(x, k), k=k)]
    assert all(0.05 < value < 1 for value in ours)
    agree(f"precision and recall, k = {k}: torch-fidelity", ours, [theirs["precision"], theirs["recall"]])

"""Averages of a run that were not tracked."""

import json

import jax
import numpy as np
import pytest

import diffjax
from configs import toy_moons
from diffjax.errors import InputError


def small(**changes):
    config = toy_moons.get_config().to_dict() | dict(steps=60, batch_size=64)
    config["net"] = dict(name="mlp", width=16, depth=1, dtype="float32")
    config["sampler"] = dict(solver="ddim", steps=2, num=8)
    config["every"] = dict(log=10, evaluate=0, checkpoint=20, preview=0, snapshot=10)
    return config | changes


def distance(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("averages") / "run"
    diffjax.train(small(), workdir)
    return workdir


def test_what_was_tracked_is_rebuilt(trained):
    model, rebuilt = diffjax.load(trained), diffjax.load(trained, ema=0.05)
    assert model.step == rebuilt.step == 60
    for a, b in zip(jax.tree.leaves(model.params), jax.tree.leaves(rebuilt.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    earlier = diffjax.load(trained, ema=0.1, step=25)
    assert earlier.step == 20
    assert rebuilt.sample(jax.random.key(0), 3, labels=[0]).shape == (3, 2)


def test_a_longer_average_is_the_one_that_would_have_been_tracked(trained, tmp_path):
    diffjax.train(small(ema=dict(name="power", stds=(0.08, 0.2))), tmp_path / "run")
    tracked, rebuilt = diffjax.load(tmp_path / "run").params, diffjax.load(trained, ema=0.08).params
    raw = diffjax.load(trained, raw=True).params
    assert distance(tracked, rebuilt) < 0.1 * distance(tracked, raw)


def test_a_sweep_scores_and_draws(trained, capsys):
    path = diffjax.sweep(trained, [0.03, 0.1, 0.2])
    table = json.loads((trained / "evaluation" / "ema.json").read_text())
    assert path.exists() and [row["std"] for row in table] == [0.03, 0.1, 0.2]
    assert table[1]["residual"] < 1e-6 < table[0]["residual"]
    assert all(np.isfinite(row["heldout_loss"]) for row in table)
    assert "least at std" in capsys.readouterr().out


def test_snapshots_of_a_run_that_went_back_are_dropped(tmp_path):
    diffjax.train(small(steps=40), tmp_path / "run")
    (tmp_path / "run" / "averages" / "50").mkdir()
    diffjax.train(small(), tmp_path / "run", allow_changes=True)
    steps = sorted(int(path.name) for path in (tmp_path / "run" / "averages").iterdir())
    assert steps == [10, 20, 30, 40, 50, 60] and list((tmp_path / "run" / "averages" / "50").iterdir())


def test_what_cannot_be_rebuilt(trained, tmp_path):
    for std in (0.0, 0.5):
        with pytest.raises(InputError, match="must lie in"):
            diffjax.load(trained, ema=std)
    with pytest.raises(InputError, match="no average"):
        diffjax.load(trained, ema=0.1, raw=True)
    with pytest.raises(InputError, match="no snapshot"):
        diffjax.load(trained, ema=0.1, step=5)
    with pytest.raises(InputError, match="holds no run"):
        diffjax.sweep(tmp_path, [0.1])
    plain = small(ema=dict(name="warmed", decay=0.9), steps=2)
    plain["every"] = plain["every"] | {"snapshot": 0}
    diffjax.train(plain, tmp_path / "plain")
    with pytest.raises(InputError, match="train with ema 'power'"):
        diffjax.load(tmp_path / "plain", ema=0.1)

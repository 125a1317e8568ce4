"""A plan as a file: made from a run, obeyed by sample.py, and refused in a sentence."""

import json
from typing import Any

import jax
import numpy as np
import pytest

import diffjax
from diffjax.assessment import plans
from diffjax.errors import InputError
from diffjax.evaluation import planner
from tests.test_averages import small

SMALL: dict[str, Any] = small()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("plans") / "run"
    diffjax.train(small(ema=dict(name="warmed", decay=0.9), every=SMALL["every"] | {"snapshot": 0}), workdir)
    return workdir


@pytest.fixture(scope="module")
def made(trained):
    """A plan of few candidates, and what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "SOLVERS", {name: planner.SOLVERS[name] for name in ("ddim", "dpmpp_3m")})
        path = diffjax.make_plan(trained, budget=3, num=8)
        before = path.read_bytes()
        assert diffjax.make_plan(trained, budget=3, num=8).read_bytes() == before  # the same to the last bit
    return path, json.loads(before)


def asked(workdir, **chosen) -> dict[str, Any]:
    names = "plan", "solver", "steps", "grid", "start", "eta", "churn", "step", "ema", "guidance"
    return {name: None for name in names} | {"workdir": workdir, "raw": False} | chosen


def test_a_plan_says_what_to_do_and_what_it_stands_on(trained, made):
    path, plan = made
    report = json.loads(path.with_suffix(".report.json").read_text())
    assert plan["calls"] <= 3 and plan["step"] == 60 and plan["labels"] == [0, 1] and plan["guidance"] is None
    assert plan["times"][-1] == 0 and plan["error"] <= 1.0001 * min(row[3] for row in report["rows"])
    assert report["predicted_milliseconds"] > 0 and path.with_suffix(".png").exists()


def test_what_is_scored_obeys(trained, made):
    path, plan = made
    asked_for = dict(plan=path, workdir=trained, num=100, features="pixels", metrics=["energy"])
    passport = json.loads(diffjax.score(**diffjax.obeying(**asked_for)).read_text())["passport"]
    assert (
        passport["sampler"]["times"] == pytest.approx(plan["times"]) and passport["sampler"]["calls"] == plan["calls"]
    )
    with pytest.raises(InputError, match="name it with --workdir"):
        diffjax.obeying(plan=path, num=100)


def test_sampling_obeys(trained, made, tmp_path):
    path, plan = made
    chosen = asked(trained, plan=path, out=tmp_path / "out", num=4, labels=[0, 1], seed=3, singles=False, batch=500)
    diffjax.sample_to_folder(**diffjax.obeying(**chosen))
    settings = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert settings["solver"] == plan["solver"] and settings["times"] == plan["times"]
    assert settings["steps"] == len(plan["times"]) - 1 and settings["step"] == plan["step"]
    x = np.load(tmp_path / "out" / "samples.npz")["x"]
    direct = diffjax.load(trained).sample(
        jax.random.key(3), 4, labels=[0, 1], solver=plan["solver"], times=plan["times"], **plan["options"]
    )
    np.testing.assert_array_equal(x, direct)


def test_without_a_plan_nothing_changes(trained):
    assert diffjax.obeying(**asked(trained, eta=0.5)) | {"plan": None} == asked(trained, eta=0.5)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda plan: plan[:40], "cannot read the plan"),
        (lambda plan: plan.replace('"format": 1', '"format": 7'), "format 7, and this version reads format 1"),
        (lambda plan: "[]", "format None"),
        (lambda plan: plan.replace('"times"', '"tims"'), "lacks times"),
        (lambda plan: plan.replace('"times": [', '"times": [0.1,'), "must fall"),
        (lambda plan: plan.replace('"run": "', '"run": "0'), "measured on another run"),
    ],
)
def test_what_is_no_plan_of_this_run_is_refused(trained, made, tmp_path, change, words):
    path = tmp_path / "plan.json"
    path.write_text(change(made[0].read_text()))
    with pytest.raises(InputError, match=words):
        diffjax.obeying(**asked(trained, plan=path))


def test_what_disagrees_with_a_plan_is_refused(trained, made):
    for name, value in dict(solver="ddim", steps=4, grid="rho", start=0.9, eta=0.0, step=60, raw=True).items():
        with pytest.raises(InputError, match=f"a plan decides what --{name} would"):
            diffjax.obeying(**asked(trained, plan=made[0], **{name: value}))
    with pytest.raises(InputError, match="measured with guidance None; got 2.0"):
        diffjax.obeying(**asked(trained, plan=made[0], guidance=2.0))
    with pytest.raises(InputError, match="cannot read the plan"):
        diffjax.obeying(**asked(trained, plan=trained / "nowhere.json"))


def test_what_cannot_be_planned(trained, tmp_path):
    requests: list[tuple[dict[str, Any], str]] = [
        (dict(budget=0), "for 1 to 50 network calls; got 0"),
        (dict(budget=3, quality="beauty"), "no quality 'beauty'"),
        (dict(budget=3, num=7), "even number of trajectories.*got --num 7"),
        (dict(milliseconds=1e-6), "give more --milliseconds"),
        (dict(budget=3, labels=[5]), "labels must be"),
    ]
    for options, words in requests:
        with pytest.raises(InputError, match=words):
            diffjax.make_plan(trained, **options)
    with pytest.raises(InputError, match="holds no run"):
        diffjax.make_plan(tmp_path, budget=3)


def test_milliseconds_are_calls():
    assert plans._affordable((3.0, 2.0), 13.9) == 5 and plans._affordable((0.0, 1e-6), 1e3) == plans.MOST


def test_times_are_a_grid_of_their_own(trained):
    model = diffjax.load(trained)
    even = model.sample(jax.random.key(0), 4, solver="ddim", steps=2)
    np.testing.assert_array_equal(model.sample(jax.random.key(0), 4, solver="ddim", times=[1, 0.5, 0]), even)
    for wrong, words in (
        (dict(times=[1, 0], steps=1), "leave out steps"),
        (dict(times=[0.2, 0.5, 0]), "must fall"),
        (dict(times=[1.5, 0]), "lie in \\[0, 1\\]"),
    ):
        with pytest.raises(InputError, match=words):
            model.sample(jax.random.key(0), 4, solver="ddim", **wrong)

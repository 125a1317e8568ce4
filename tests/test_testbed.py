"""The command that judges solvers: its table, its picture, a solver of one's own, and what it refuses."""

import json
import sys

import jax
import pytest
from PIL import Image

from diffjax.testbed import __main__ as command
from diffjax.testbed.worlds import WORLDS


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_enable_x64", False)  # which the command sets for its process


def run(tmp_path, capsys, *words):
    command.main([*words, "--num", "512", "--out", str(tmp_path / "out")])
    return capsys.readouterr().out, json.loads((tmp_path / "out" / "table.json").read_text())


def test_better_solvers_are_closer_to_the_law(tmp_path, capsys):
    text, record = run(
        tmp_path, capsys, "--solver", "ddim,unipc,heun,euler_maruyama", "--schedule", "edm,flow", "--nfe", "5,10,20"
    )
    rows = {(r["solver"], r["schedule"]): r for r in record["rows"]}
    for schedule in ("edm", "flow"):
        assert rows["unipc", schedule]["distances"]["20"] < rows["ddim", schedule]["distances"]["10"]
    assert rows["ddim", "edm"]["order"] == pytest.approx(1, abs=0.3)
    assert rows["heun", "edm"]["order"] > 1.6
    assert "alpha(1) > 0" in rows["euler_maruyama", "flow"]["refused"] and "refused: euler_maruyama" in text
    assert "chance alone" in text and record["chance"][0] < record["chance"][1]
    with Image.open(tmp_path / "out" / "distance.png") as picture:
        assert picture.size[0] > 2 * 400


OWN = """
from diffjax.diffusion.solvers import ddim

def mine(process):
    return ddim(process)
"""


def test_a_solver_of_ones_own_is_judged(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_package.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    _, record = run(tmp_path, capsys, "--solver", "my_package:mine,ddim", "--schedule", "linear", "--nfe", "6")
    mine, theirs = record["rows"]
    assert mine["distances"] == theirs["distances"] and mine["solver"] == "my_package:mine"
    sys.modules.pop("my_package")


def test_a_point_is_hit_by_all_and_adaptive_rules_are_counted(tmp_path, capsys):
    _, record = run(
        tmp_path, capsys, "--solver", "rk45,dpm_3", "--schedule", "cosine", "--world", "point", "--nfe", "2,200"
    )
    adaptive, three = record["rows"]
    assert adaptive["distances"]["2"] is None and adaptive["distances"]["200"] < 1e-6
    assert three["distances"]["2"] < 1e-6  # its step onto data is one call


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_are_laws(name):
    world = WORLDS[name]()
    draws = world.draw(jax.random.key(0), 2000)
    assert draws.shape[1:] == world.mean.shape
    assert float(abs(draws.mean(0) - world.mean).max()) < 0.3


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--solver", "dpmpp_2n"], "no solver 'dpmpp_2n'; did you mean 'dpmpp_2"),
        (["--solver", "nowhere:rule"], "cannot find solver nowhere:rule"),
        (["--world", "mixtur"], "did you mean 'mixture'"),
        (["--nfe", "5,x"], "--nfe must be whole numbers"),
        (["--nfe", "0"], "must be at least 1"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_sentence(words, sentence, capsys, tmp_path):
    with pytest.raises(SystemExit) as caught:
        command.main([*words, "--out", str(tmp_path)])
    assert sentence in str(caught.value) + capsys.readouterr().err

"""A step that went wrong is kept, and is the same when it is done again."""

import json

import numpy as np
import pytest

import diffjax
from configs import toy_moons
from diffjax.errors import InputError
from tests.commands import run


@pytest.fixture
def poisoned(tmp_path):
    """A config whose data has one example that is not a number, and where it is."""
    x = np.random.default_rng(0).standard_normal((128, 2)).astype(np.float32)
    x[77] = 1e30  # its square is not finite
    np.savez(tmp_path / "points.npz", x=x, label=np.arange(128) % 2)
    config = toy_moons.get_config().to_dict() | dict(steps=60, batch_size=16)
    config["data"] = dict(
        name="npz",
        path=str(tmp_path / "points.npz"),
        split="train",
        heldout="",
        flip=False,
        skip=False,
        range=(-1.0, 1.0),
    )
    config["net"] = dict(name="mlp", width=16, depth=1, dtype="float32")
    config["sampler"] = dict(solver="ddim", steps=2, num=8)
    config["every"] = dict(log=1, evaluate=0, checkpoint=2, preview=0, snapshot=0)
    return config


def test_a_step_that_is_not_finite_is_kept_and_done_again(poisoned, tmp_path, capsys):
    with pytest.raises(InputError, match=r"loss became (nan|inf) in step \d.*--replay .*blackbox"):
        diffjax.train(poisoned, tmp_path / "run")
    (box,) = (tmp_path / "run" / "blackbox").iterdir()
    record = json.loads((box / "dump.json").read_text())
    assert (
        77 in record["examples"] and len(record["examples"]) == 16 and record["reason"].startswith("the loss became ")
    )
    assert record["checkpoint"] % 2 == 0 and 0 <= record["step"] - record["checkpoint"] <= 4
    capsys.readouterr()

    seen = diffjax.replay(box)
    shown = capsys.readouterr().out
    bad = [i for i, loss in enumerate(seen["rows"]["loss"]) if not np.isfinite(loss)]
    assert [record["examples"][i] for i in bad] == [77] and "example 77" in shown
    assert any(layer["not_finite"] > 0 for layer in seen["layers"].values())
    assert "blocks/0/kernel" in shown and json.loads((box / "replay.json").read_text())["step"] == record["step"]


def test_a_step_within_a_call_is_kept_as_if_it_were_alone(poisoned, tmp_path):
    poisoned["every"] |= dict(log=4, checkpoint=4)
    records = []
    for most in (1, 4):
        with pytest.raises(InputError, match="loss became"):
            diffjax.train(poisoned | {"steps_per_call": most}, tmp_path / str(most))
        (box,) = (tmp_path / str(most) / "blackbox").iterdir()
        records.append(json.loads((box / "dump.json").read_text()))
    seen = diffjax.replay(box)
    (bad,) = np.flatnonzero(~np.isfinite(seen["rows"]["loss"]))
    assert records[1]["examples"][bad] == 77 and records[1].pop("config") != records[0].pop("config")
    assert json.dumps(records[0]) == json.dumps(records[1])  # not a number is not equal to itself


def test_a_spike_is_kept_and_training_goes_on(poisoned, tmp_path, capsys):
    x = np.random.default_rng(0).standard_normal((128, 2)).astype(np.float32)
    x[77] = 1000
    np.savez(tmp_path / "points.npz", x=x, label=np.arange(128) % 2)
    poisoned["optimizer"] |= {"learning_rate": 1e-4}
    poisoned["every"] |= {"checkpoint": 10}
    diffjax.train(poisoned | {"watch": {"spike": 20.0}, "steps": 40}, tmp_path / "run")
    assert diffjax.load(tmp_path / "run", raw=True).step == 40
    boxes = sorted((tmp_path / "run" / "blackbox").iterdir(), key=lambda path: int(path.name))
    record = json.loads((boxes[0] / "dump.json").read_text())
    assert "times the median" in record["reason"] and 77 in record["examples"]
    seen = diffjax.replay(boxes[0])
    assert seen["loss"] == pytest.approx(record["recent"][-1]["loss"], rel=1e-6)
    worst = int(np.argmax(seen["rows"]["loss"]))
    assert record["examples"][worst] == 77


@pytest.mark.slow
def test_on_other_devices_from_the_command_line(poisoned, tmp_path):
    with pytest.raises(InputError, match="became (nan|inf)"):
        diffjax.train(poisoned, tmp_path / "run")  # on eight devices
    (box,) = (tmp_path / "run" / "blackbox").iterdir()
    status, out, err = run("train.py", "--replay", box, devices=2)
    assert status == 0 and "example 77" in out, err


def test_a_black_box_that_cannot_be_read(tmp_path):
    (tmp_path / "dump.json").write_text("{")
    with pytest.raises(InputError, match="cannot read the black box"):
        diffjax.replay(tmp_path)

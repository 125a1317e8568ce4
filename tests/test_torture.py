"""A run that is killed, or that changes machines, is the run that was left alone."""

import json

import numpy as np
import pytest

from tests import torture
from tests.commands import run

pytestmark = pytest.mark.slow


def test_six_kills_change_no_bit(tmp_path):
    """`make torture` is the same with a hundred."""
    seen = torture.torture(tmp_path, kills=6, steps=60)
    print(dict(seen))
    assert seen["inside a save"] >= 1 and seen["during start-up"] + seen["inside a save"] + seen["between saves"] >= 5
    assert not seen["passed over as damaged"]


def test_what_differs_is_seen(tmp_path):
    """Another seed: other losses, another state."""
    for name, seed in (("one", 0), ("two", 1)):
        status, _, error = run(*torture.command(tmp_path / name, 10), f"--config.seed={seed}")
        assert status == 0, error
    with pytest.raises(AssertionError):
        torture.same(tmp_path / "one", tmp_path / "two")


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.asarray([line["loss"] for line in lines if "loss" in line])


def test_eight_devices_then_four_then_eight(tmp_path):
    """Same examples, same noise, same losses to 1e-5."""

    def train(workdir, devices, *, steps):
        changes = ["--config.mesh.fsdp=4", "--config.net.width=128", "--config.optimizer.decay=constant"]
        changes += ["--config.every.checkpoint=15"]
        status, out, error = run(*torture.command(workdir, steps), *changes, "--allow_changes", devices=devices)
        assert status == 0 and f"{devices} device(s)" in out, error

    train(tmp_path / "whole", 8, steps=45)
    for devices, steps in ((8, 15), (4, 30), (8, 45)):
        train(tmp_path / "moved", devices, steps=steps)
    np.testing.assert_allclose(losses(tmp_path / "moved"), losses(tmp_path / "whole"), rtol=1e-5)

"""Numbers on disk: one object a line, cut where a run resumes."""

import json
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from diffjax.errors import InputError
from diffjax.training import Report, WandB


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def report(workdir, start=0, quiet=False, **more):
    return Report(workdir, start=start, total=10, rows=4, unit="examples", quiet=quiet, **more)


def test_metrics_are_averaged_and_speeds_belong_to_each_other(tmp_path):
    with report(tmp_path) as numbers:
        numbers.training(2, [{"loss": 1.0, "grad_norm": 3.0}, {"loss": 2.0, "grad_norm": 5.0}])
        numbers.training(2, [])
        numbers.scores(2, {"heldout_loss": 0.5, "heldout_loss_t0.06": 0.25})
        numbers.scores(3, {})
        numbers.training(3, [{"loss": 7.0, "grad_norm": 1.0}])
        assert len(lines(tmp_path)) == 3  # readable while the run goes on
    first, second, third = lines(tmp_path)
    assert (first["step"], first["loss"], first["grad_norm"]) == (2, 1.5, 4.0)
    assert first["examples_per_second"] == pytest.approx(4 * first["steps_per_second"])
    assert second == {"step": 2, "heldout_loss": 0.5, "heldout_loss_t0.06": 0.25}
    assert (third["step"], third["loss"]) == (3, 7.0)


def test_speed_is_that_of_training_alone(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("diffjax.training.metrics.time.perf_counter", lambda: now[0])
    with report(tmp_path) as numbers:
        now[0] += 2
        numbers.training(4, [{"loss": 1.0}])
        now[0] += 50
        numbers.scores(4, {"heldout_loss": 0.5})
        numbers.resume()
        now[0] += 1
        numbers.training(9, [{"loss": 1.0}])
    assert [line["steps_per_second"] for line in lines(tmp_path) if "loss" in line] == [2, 5]


def test_waits_are_shares_of_the_time(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("diffjax.training.metrics.time.perf_counter", lambda: now[0])
    with report(tmp_path, utilisation=0.125) as numbers:
        for _ in range(2):
            with numbers.waiting("data"):
                now[0] += 0.5
            now[0] += 1.5
            numbers.training(2, [{"loss": 1.0}])
            with numbers.waiting("checkpoint"):
                now[0] += 6
            numbers.resume()
            numbers._at = 0
    first, second = lines(tmp_path)
    assert (first["data_wait"], first["checkpoint_wait"], first["mfu"]) == (0.25, 0, 0.125)
    assert (second["data_wait"], second["checkpoint_wait"]) == (0.25, 0.75)


def test_losses_by_level_are_means_over_the_rows_that_had_it(tmp_path):
    one, two = np.zeros((2, 4)), np.zeros((2, 4))
    one[:, 1], two[:, 1], two[:, 3] = (6, 2), (1, 1), (5, 1)
    facts = lambda step: {"learning_rate": step / 10}  # noqa: E731
    with report(tmp_path, facts=facts) as numbers:
        numbers.training(2, [{"loss": 1.0, "by_level": one}, {"loss": 2.0, "by_level": two}])
    (line,) = lines(tmp_path)
    assert {name: value for name, value in line.items() if "_t0" in name} == {"loss_t0.38": 7 / 3, "loss_t0.88": 5.0}
    assert line["learning_rate"] == 0.2


def test_weights_and_biases_get_the_same(tmp_path, monkeypatch):
    """Beside a stand-in of the same signatures; where it is not installed that is a sentence."""
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    def init(*, project, name, id, dir, config, resume):
        calls.append((project, name, id, resume, config))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    board = WandB("moons", tmp_path, {"seed": 1})
    with report(tmp_path, wandb=board) as numbers:
        numbers.training(2, [{"loss": 1.0}])
    assert calls[0] == ("moons", tmp_path.name, tmp_path.name, "allow", {"seed": 1}) and calls[2] == "finished"
    assert calls[1] == (2, {k: v for k, v in lines(tmp_path)[0].items() if k != "step"})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        WandB("moons", tmp_path, {})


@pytest.mark.parametrize("end", ["", '{"step": 4, "lo', "\x00\x00\n"], ids=["whole", "half a line", "zeros"])
def test_what_lies_beyond_the_resumed_step_is_cut(tmp_path, end):
    (tmp_path / "metrics.jsonl").write_text(
        "".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in (1, 2, 2, 3)) + end
    )
    with report(tmp_path, start=2) as numbers:
        numbers.training(3, [{"loss": 9.0}])
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1.0), (2, 1.0), (2, 1.0), (3, 9.0)]


def test_tensorboard_gets_the_same(tmp_path):
    with report(tmp_path) as numbers:
        numbers.training(2, [{"loss": 1.0}])
        numbers.scores(2, {"heldout_loss": 0.5})
    events = []
    for (path,) in [list((tmp_path / "tensorboard").iterdir())]:
        reader, data = path.read_bytes(), 0
        while data < len(reader):  # length, its checksum, event, its checksum
            (size,) = struct.unpack_from("Q", reader, data)
            events.append(Event.FromString(reader[data + 12 : data + 12 + size]))
            data += 12 + size + 4
    assert events[0].file_version == "brain.Event:2" and events[1].step == 1
    seen = {(e.step, v.tag): v.simple_value for e in events for v in e.summary.value}
    assert seen[2, "loss"] == 1 and seen[2, "heldout_loss"] == 0.5 and (2, "steps_per_second") in seen


def test_quiet_writes_nothing(tmp_path, capfd):
    with report(tmp_path, quiet=True) as numbers:
        numbers.training(2, [{"loss": 1.0}])
        numbers.scores(2, {"heldout_loss": 0.5})
        numbers.note("hello")
    assert not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


def test_otherwise_the_bar_and_the_notes_are_seen(tmp_path, capfd):
    with report(tmp_path) as numbers:
        numbers.training(2, [{"loss": 1.0}])
        numbers.scores(2, {"heldout_loss": 0.5})
    seen = capfd.readouterr()
    assert "step 2: held-out loss 0.5000" in seen.out and "2/10" in seen.err

"""Numbers on disk: one object a line, cut where a run resumes."""

import json

import pytest

from diffjax.training import Report


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def report(workdir, start=0, quiet=False):
    return Report(workdir, start=start, total=10, rows=4, unit="examples", quiet=quiet)


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
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert all(tag in events.read_bytes() for tag in (b"loss", b"heldout_loss", b"steps_per_second"))


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

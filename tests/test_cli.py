"""The commands as a user runs them: train, interrupt, resume, sample; and what they refuse."""

import json
import signal

import jax
import numpy as np
import pytest
from PIL import Image

import diffjax
from configs import toy_moons
from tests.commands import TOY, interrupt, refused, run

STEPS = 240
SMALL = [*TOY, f"--config.steps={STEPS}", "--config.batch_size=64", "--config.every.checkpoint=20",
         "--config.every.log=10", "--config.every.preview=120", "--config.every.evaluate=120"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    status, out, err = run(*SMALL, "--workdir", workdir)
    assert status == 0, err
    assert "10,000 points of 2, 2 classes" in out and "starting at step 0" in out
    return workdir


def parameters(workdir, **options):
    return jax.tree.leaves(jax.device_get(diffjax.load(workdir, **options).params))


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "per_second" not in k} for line in lines]


def test_what_a_run_leaves(finished):
    assert json.loads((finished / "config.json").read_text())["config"]["steps"] == STEPS
    assert sorted(p.name for p in (finished / "previews").iterdir()) == ["0000120.png", "0000240.png"]
    assert list((finished / "tensorboard").iterdir())
    assert {int(p.name) for p in (finished / "checkpoints").iterdir()} >= {220, 240}
    lines = losses(finished)
    assert lines[-2]["step"] == lines[-1]["step"] == STEPS and lines[-1]["heldout_loss"] < 1.5 < lines[0]["loss"] + 1
    assert diffjax.load(finished).step == STEPS


def test_a_finished_run_is_left_alone(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and p.name != "config.json"}
    status, out, _ = run(*SMALL, "--workdir", finished)
    assert status == 0 and f"training is complete: {finished} is at step {STEPS}" in out
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(finished, tmp_path, number):
    workdir = tmp_path / "run"
    status, output = interrupt(workdir, number, *SMALL, after="checkpoints/20")
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 0 and "run the same command to continue" in output, output
    assert not (workdir / "checkpoints" / str(STEPS)).exists(), "the run ended before the signal came"
    status, out, err = run(*SMALL, "--workdir", workdir)
    assert status == 0 and "continuing at step" in out, err
    for raw in (False, True):
        for one, two in zip(parameters(workdir, raw=raw), parameters(finished, raw=raw), strict=True):
            np.testing.assert_array_equal(one, two)
    resumed = {line["step"]: line["loss"] for line in losses(workdir) if "loss" in line}
    whole = {line["step"]: line["loss"] for line in losses(finished) if "loss" in line}
    others = [step for step in whole if resumed.get(step) != whole[step]]
    assert len(others) <= (number != signal.SIGKILL), others  # a polite stop parts the window that it falls into


def test_sample_writes_everything(finished, tmp_path):
    arguments = ["--num", 5, "--labels", "0,1", "--guidance", 2, "--steps", 4, "--solver", "dpmpp_2m", "--eta", 0]
    status, out, err = run("sample.py", "--workdir", finished, *arguments, "--seed", 7, "--out", tmp_path / "s")
    assert status == 0 and out.strip().endswith(str(tmp_path / "s" / "samples.png")), err
    with np.load(tmp_path / "s" / "samples.npz") as arrays:
        assert arrays["x"].dtype == np.float32 and arrays["x"].shape == (5, 2)
        assert arrays["label"].tolist() == [0, 1, 0, 1, 0]
        model = diffjax.load(finished)
        again = model.sample(jax.random.key(7), 5, labels=[0, 1], guidance=2.0, steps=4, solver="dpmpp_2m")
        np.testing.assert_allclose(arrays["x"], again, rtol=1e-4, atol=1e-5)
    settings = json.loads((tmp_path / "s" / "samples.json").read_text())
    expected = dict(seed=7, num=5, labels=[0, 1], guidance=2.0, steps=4, solver="dpmpp_2m", step=STEPS, raw=False)
    assert expected.items() <= settings.items()
    with Image.open(tmp_path / "s" / "samples.png") as picture:
        picture.verify()


def test_raw_parameters_are_others(finished):
    one, two = parameters(finished), parameters(finished, raw=True)
    assert any((a != b).any() for a, b in zip(one, two, strict=True))


def test_a_changed_config_needs_a_flag(finished, tmp_path):
    sentence = refused(*SMALL, "--workdir", finished, "--config.net.width=32", "--config.seed=3")
    assert (
        "config.net.width: 64 -> 32" in sentence and "config.seed: 0 -> 3" in sentence and "--allow_changes" in sentence
    )
    status, out, _ = run(*SMALL, "--workdir", finished, "--config.every.log=7", "--config.sampler.steps=5")
    assert status == 0 and "complete" in out  # what does not touch the learning may change
    status, out, _ = run(*SMALL, "--workdir", finished, "--config.label_dropout=0.2", "--allow_changes")
    assert status == 0 and "config.label_dropout: 0.1 -> 0.2" in out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config.schedule.name=cosin"], "no schedule 'cosin'; did you mean 'cosine'?"),
        (["--config.net.widht=3"], "did you mean"),
        (["--config.net.width=wide"], "invalid literal for int()"),
        (["--config.steps=0"], "steps must be a whole number of at least 1"),
        (["--config=configs/nothing.py"], "configs/nothing.py"),
        (["stray"], "unexpected arguments"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_train_refuses(arguments, words, tmp_path):
    assert words.lower() in refused(*TOY, "--workdir", tmp_path / "run", *arguments).lower()
    assert not (tmp_path / "run").exists()


def test_a_batch_must_split_over_the_devices(tmp_path):
    sentence = refused(*TOY, "--workdir", tmp_path / "run", "--config.batch_size=12", devices=8)
    assert "batch_size=12 does not split over data x fsdp = 8 devices" in sentence
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_used(tmp_path, finished):
    (tmp_path / "file").write_text("")
    assert "cannot use workdir" in refused(*TOY, "--workdir", tmp_path / "file")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert "cannot use workdir" in refused(*TOY, "--workdir", tmp_path / "broken")


def test_a_loss_that_is_not_finite(tmp_path):
    """The run stops, says in which step, and keeps the last good checkpoint; again, it stops in the very same step."""
    workdir = tmp_path / "run"
    bad = [*SMALL, "--workdir", workdir, "--config.optimizer.learning_rate=1e18", "--config.optimizer.clip=0.0",
           "--config.optimizer.warmup=1", "--config.every.checkpoint=1", "--config.keep.last=1"]  # fmt: skip
    first = refused(*bad)
    assert "in step " in first and "last good checkpoint" in first and "run the same command again" in first
    kept = sorted(p.name for p in (workdir / "checkpoints").iterdir())
    assert refused(*bad).split(" in step ")[1] == first.split(" in step ")[1]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == kept


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--labels", "0,7"], "labels must be whole numbers in 0..1; got [0, 7]"),
        (["--steps", 0], "steps must be at least 1; got 0"),
        (["--num", 0], "at least 1; got 0"),
        (["--solver", "heum"], "did you mean 'heun'?"),
        (["--solver", "heun", "--eta", 0.5], "no option 'eta' of solver 'heun'"),
        (["--step", 7], "step 7"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_sample_refuses(finished, arguments, words, tmp_path):
    assert words in refused("sample.py", "--workdir", finished, "--out", tmp_path / "s", *arguments)
    assert not (tmp_path / "s").exists()


def test_sample_needs_a_run_with_a_checkpoint(finished, tmp_path):
    assert "holds no run" in refused("sample.py", "--workdir", tmp_path)
    (tmp_path / "config.json").write_text((finished / "config.json").read_text())
    assert "has no checkpoint yet" in refused("sample.py", "--workdir", tmp_path)
    assert run("sample.py", "--workdir", finished, "--labels", "a,b")[0] == 2


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_help_answers_without_the_library(script):
    code = (
        f"import runpy, sys; sys.argv = ['{script}', '--help']\ntry: runpy.run_path('{script}', run_name='__main__')\n"
    )
    code += "finally: print('jax' in sys.modules)"
    _, out, err = run("-c", code)
    assert "--workdir" in out + err and out.strip().endswith("False")


def test_data_is_written_into_records_once(tmp_path):
    """Training reads from them what it reads from the data itself."""
    command = ["-m", "diffjax.cache", "--config", "configs/toy_moons.py", "--out", tmp_path / "moons"]
    status, _, err = run(*command)
    assert status == 0 and (tmp_path / "moons" / "test" / "examples.array_record").exists(), err
    assert "is there already" in refused(*command)
    assert "package.module:function" in refused(*command[:-1], tmp_path / "other", "--encode", "numpy:nothing")
    plain = toy_moons.get_config().to_dict() | dict(steps=20, batch_size=64)
    plain["every"] |= dict(log=1, evaluate=0, preview=0, snapshot=0)
    rest = {key: plain["data"][key] for key in ("split", "heldout", "flip", "skip", "range")}
    stored = plain | {"data": dict(name="records", path=str(tmp_path / "moons"), **rest)}
    for name, config in (("direct", plain), ("stored", stored)):
        diffjax.train(config, tmp_path / name)
    direct, stored = ([line["loss"] for line in losses(tmp_path / name)] for name in ("direct", "stored"))
    assert direct == stored and len(direct) == 20

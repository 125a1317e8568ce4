"""Training on files: an image that cannot be read stops the run with its name, and nothing is lost."""

import shutil
from importlib import metadata

import jax
import numpy as np
import pytest
from PIL import Image

import diffjax
from configs import digits
from diffjax.errors import InputError
from diffjax.training import open_checkpoints
from tests.torture import same


def small(folder):
    """Two classes of eight pictures each, and a small config for them."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 255, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{i}.png")
    config = digits.get_config().to_dict()
    config["data"] = dict(
        name="folder",
        path=str(folder / "data"),
        size=8,
        split="train",
        heldout="",
        flip=True,
        skip=False,
        range=(-1.0, 1.0),
    )
    config["net"] = dict(name="mlp", width=8, depth=1)  # compiles in no time
    config |= dict(batch_size=8, steps=4, sampler=dict(solver="ddim", steps=2, num=8))
    config["every"] = dict(log=1, evaluate=0, checkpoint=1, preview=4, snapshot=0)
    return config


@pytest.fixture
def pictures(tmp_path):
    return small(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = small(folder)
    diffjax.train(config, folder / "run")
    return config, folder / "run"


@pytest.fixture
def trained(finished, tmp_path):
    """The config of a run of four steps, which lies in tmp_path / "run"."""
    config, run = finished
    shutil.copytree(run, tmp_path / "run")
    return config


def test_images_train_and_sample(pictures, tmp_path, capsys):
    pictures["net"] = dict(name="unet", width=8, multipliers=(1, 1), blocks=1, attention=())
    diffjax.train(pictures, tmp_path / "run")
    assert "16 images of 8 x 8 x 3, 2 classes, values 0..255 as -1..1" in capsys.readouterr().out
    path = diffjax.sample_to_folder(
        tmp_path / "run", tmp_path / "out", num=3, labels=[1], seed=0, step=None, raw=False, singles=True
    )
    assert path.name == "samples.png"
    assert sorted(p.name for p in path.parent.glob("0*.png")) == ["00000.png", "00001.png", "00002.png"]
    with Image.open(path.parent / "00000.png") as single:
        assert single.size == (8, 8)


def test_a_model_needs_its_data_no_more(pictures, tmp_path):
    diffjax.train(pictures, tmp_path / "run")
    shutil.rmtree(tmp_path / "data")
    model = diffjax.load(tmp_path / "run")
    assert model.sample(jax.random.key(0), 2, labels=[0]).shape == (2, 8, 8, 3)
    with pytest.raises(InputError, match="does not hold it"):
        model.experiment.source.read(np.arange(2))


def test_a_checkpoint_says_where_the_data_was(trained, tmp_path):
    with open_checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        meta = checkpoints.meta(4)
    assert meta["position"] == {"step": 4, "seed": 0, "examples": 32}
    assert len(meta["data"].pop("seen")) == 16 and meta["data"] == {"size": 16, "shape": [8, 8, 3], "classes": 2}
    assert meta["config"]["batch_size"] == 8 and "jax" in meta["versions"]


def test_calls_of_many_steps_are_the_same_run(pictures, tmp_path):
    """The same bits and lines, stopped and continued within what would be a call, and with calls of another length."""
    pictures["every"] = dict(log=3, evaluate=0, checkpoint=6, preview=0, snapshot=3)
    pictures |= {"ema": dict(name="power", stds=(0.1,)), "optimizer": pictures["optimizer"] | {"decay": "constant"}}
    for name, lengths in (("alone", (1, 1)), ("calls", (3, 2))):
        for steps, n in zip((5, 12), lengths, strict=True):  # made longer when it has ended
            changes = {"steps": steps, "steps_per_call": n}
            diffjax.train(pictures | changes, tmp_path / name, allow_changes=True)
    same(tmp_path / "alone", tmp_path / "calls")


def test_an_unreadable_image_is_named(pictures, tmp_path):
    (tmp_path / "data" / "dogs" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="3.png"):
        diffjax.train(pictures, tmp_path / "run")


@pytest.mark.parametrize("missing", [True, False])
def test_a_missing_or_empty_folder(pictures, tmp_path, missing):
    pictures["data"]["path"] = str(tmp_path / "nowhere")
    if not missing:
        (tmp_path / "nowhere").mkdir()
    with pytest.raises(InputError, match="there (is|are) no .*nowhere"):
        diffjax.train(pictures, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_data_is_another_run(pictures, tmp_path):
    diffjax.train(pictures, tmp_path / "run")
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "cats" / "new.png")
    with pytest.raises(InputError, match="data.size: 16 -> 17"):
        diffjax.train(pictures, tmp_path / "run")


def test_a_change_that_the_checkpoint_does_not_fit_loses_nothing(trained, tmp_path):
    before = (tmp_path / "run" / "config.json").read_text()
    wider = trained | {"net": trained["net"] | {"width": 16}, "steps": 6}
    with pytest.raises(InputError, match="restore it with the configuration"):
        diffjax.train(wider, tmp_path / "run", allow_changes=True)
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert diffjax.load(tmp_path / "run").step == 4


def test_other_data_of_the_same_size_is_another_run(pictures, tmp_path):
    diffjax.train(pictures, tmp_path / "run")
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "cats" / "0.png")
    with pytest.raises(InputError, match="data.seen: "):
        diffjax.train(pictures | {"steps": 5}, tmp_path / "run")


def test_other_libraries_need_a_flag(trained, tmp_path, capsys):
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace(f'"optax": "{metadata.version("optax")}"', '"optax": "0.0.1"'))
    with pytest.raises(InputError, match="versions.optax: 0.0.1 -> "):
        diffjax.train(trained, tmp_path / "run")
    diffjax.train(trained | {"steps": 5}, tmp_path / "run", allow_changes=True)
    assert "continuing with a change: versions.optax: 0.0.1" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b'{"config": 3, "data": {}}', b"\xff"])
def test_a_damaged_config_is_named(pictures, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    for use in (lambda: diffjax.train(pictures, tmp_path), lambda: diffjax.load(tmp_path)):
        with pytest.raises(InputError, match="config.json cannot be read"):
            use()
    assert (tmp_path / "config.json").read_bytes() == content


def test_samples_that_cannot_be_written(trained, tmp_path):
    (tmp_path / "file").write_text("")
    options = dict(num=1, labels=None, step=None, raw=False, singles=False)
    with pytest.raises(InputError, match="cannot write samples into"):
        diffjax.sample_to_folder(tmp_path / "run", tmp_path / "file", seed=0, **options)
    for seed in (-1, 2**70):
        with pytest.raises(InputError, match="seed must lie in"):
            diffjax.sample_to_folder(tmp_path / "run", tmp_path / "out", seed=seed, **options)


def test_checkpoints_without_a_config_are_not_overwritten(trained, tmp_path):
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(InputError, match="holds checkpoints but no config.json"):
        diffjax.train(trained, tmp_path / "run")

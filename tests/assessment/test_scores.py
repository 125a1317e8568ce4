"""Samples scored beside a reference: the numbers, their passport, and what is refused before anything is computed."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import diffjax
from diffjax.assessment.run import opened
from diffjax.assessment.sets import drawn, kept, stored, survey
from diffjax.data import digits, scaled, toy
from diffjax.errors import InputError
from diffjax.evaluation.passport import PARTS, compare
from diffjax.model import load

RANGE = (-1.0, 1.0)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Digits in three files: two halves of the training scans, and noise."""
    folder = tmp_path_factory.mktemp("halves")
    batch = digits("train").read(np.arange(1400))
    x = scaled(batch["x"], digits("train"), RANGE)
    noise = np.random.default_rng(0).uniform(-1, 1, x[:700].shape).astype(np.float32)
    for name, some, label in (
        ("a", x[::2], batch["label"][::2]),
        ("b", x[1::2], batch["label"][1::2]),
        ("c", noise, None),
    ):
        np.savez(folder / f"{name}.npz", x=some, **({} if label is None else {"label": label}))
    return folder


def read(folder):
    found = json.loads((folder / "scores.json").read_text())
    return found["numbers"], found["passport"]


def of(halves, name, out, **options):
    diffjax.score(samples=halves / f"{name}.npz", reference=halves / "b.npz", out=out, features="pixels", **options)
    return read(out)


def test_real_data_scores_like_real_data_and_noise_does_not(halves, tmp_path):
    good, passport = of(halves, "a", tmp_path / "good", batch=300)
    bad, _ = of(halves, "c", tmp_path / "bad", metrics=["frechet", "precision", "coverage"])
    assert good["frechet_pixels"]["value"] < 0.05 * bad["frechet_pixels"]["value"]
    assert good["precision"]["value"] > 0.8 and bad["precision"]["value"] < 0.05
    assert good["coverage"]["value"] > 0.8 and bad["coverage"]["value"] < 0.05
    low, high = good["kid"]["interval"]
    assert low < 0 < high, "two halves of a set are of one law"
    assert "inception_score" not in good, "pixels have no classes"
    assert set(passport) == set(PARTS) and passport["n"] == 700 and passport["features"]["name"] == "pixels"
    with pytest.raises(InputError, match="--vary"):
        compare(tmp_path / "good" / "scores.json", tmp_path / "bad" / "scores.json")
    told = compare(tmp_path / "good" / "scores.json", tmp_path / "bad" / "scores.json", vary=["model", "labels"])
    assert "frechet_pixels" in told and "apart" in told
    assert (tmp_path / "good" / "scored.png").exists()


def test_numbers_do_not_depend_on_the_batch_and_the_reference_is_cached(halves, tmp_path):
    whole, passport = of(halves, "a", tmp_path, batch=700)
    (cache,) = (tmp_path / "features").glob("reference_*.npz")
    assert passport["reference"]["hash"] in cache.name
    made = cache.stat().st_mtime_ns
    parts, again = of(halves, "a", tmp_path, batch=64)
    assert cache.stat().st_mtime_ns == made
    assert again == passport
    for name, number in whole.items():
        assert parts[name]["value"] == pytest.approx(number["value"], rel=1e-9, abs=1e-12), name


def test_a_run_is_scored_beside_its_own_training_data(trained):
    diffjax.score(trained, num=400, features="pixels", metrics=["energy"], batch=150, solver="heun", steps=3)
    numbers, passport = read(trained / "evaluation")
    assert numbers["energy"]["value"] > 0
    assert passport["sampler"]["solver"] == "heun" and passport["sampler"]["calls"] == 5
    assert passport["labels"] == "as frequent as in the training data" and passport["model"]["step"] == 300
    assert passport["reference"]["size"] == toy("train").size


def test_labels_are_as_frequent_as_in_the_data_or_as_given(trained):
    model = load(trained)
    uneven = toy("train")._replace(
        read=lambda indices: {"x": toy("train").read(indices)["x"], "label": (indices % 4 == 0).astype(np.int32)}
    )
    free = drawn(model, survey("uneven", uneven).frequencies, num=2000, seed=0, batch=500)
    share = np.mean(np.concatenate([label for _, label in free.batches()]))
    assert share == pytest.approx(0.25, abs=0.04)
    given = drawn(model, None, num=5, seed=0, batch=2, labels=[1, 0])
    assert np.concatenate([label for _, label in given.batches()]).tolist() == [1, 0, 1, 0, 1]
    x = np.concatenate([x for x, _ in given.batches()])
    np.testing.assert_array_equal(x, model.sample(jax.random.key(0), 5, labels=[1, 0, 1, 0, 1], batch=2))


def test_copies_are_found(trained, monkeypatch):
    """Samples that are training examples have no novelty."""
    path = diffjax.find_copies(trained, num=200, batch=100)
    assert path.suffix == ".json", "points in the plane are no strips of pictures"
    found = json.loads(path.read_text())["numbers"]
    assert found["novelty"]["value"] > 0.5
    run, real = opened(trained), toy("train").read(np.arange(200))["x"]
    stolen = run.model._replace(stream=lambda key, n, **options: iter([real]))
    with monkeypatch.context() as patch:
        patch.setattr(diffjax.assessment.copies, "opened", lambda *args, **which: run._replace(model=stolen))
        path = diffjax.find_copies(trained, num=200, batch=200)
    found = json.loads(path.read_text())["numbers"]
    assert found["novelty"]["value"] < 1e-3 and found["copies"]["value"] == 1


def test_a_hash_sees_every_example(halves):
    source = stored(halves / "a.npz", shape=(8, 8, 1), value_range=RANGE)
    seen = survey("a", source)
    x = np.load(halves / "a.npz")["x"]
    label = np.load(halves / "a.npz")["label"]
    assert seen.frequencies == pytest.approx(np.bincount(label) / len(label))
    x[699, 7, 7] += 1e-3
    np.savez(halves / "changed.npz", x=x, label=label)
    changed = stored(halves / "changed.npz", shape=(8, 8, 1), value_range=RANGE)
    assert survey("a", changed).hash != seen.hash == survey("a", source, batch=7).hash
    assert kept(source, RANGE, count=10, batch=4).count == 10


@pytest.fixture
def bad(tmp_path, halves):
    """Sets that cannot be scored, by name."""
    x = np.load(halves / "a.npz")["x"][:20]
    spoiled = x.copy()
    spoiled[3] = np.nan
    for name, some in {
        "wide": np.repeat(x, 2, 2),
        "bytes": 255 * (x + 1) / 2,
        "unit": (x + 1) / 2,
        "nan": spoiled,
    }.items():
        np.savez(tmp_path / f"{name}.npz", x=some)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    for i, side in enumerate((8, 9)):
        Image.new("L", (side, side)).save(tmp_path / "mixed" / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize(
    "name, words",
    [
        ("wide.npz", "8 x 16 x 1, the other set 8 x 8 x 1"),
        ("bytes.npz", "run from 0 to 255, and -1 to 1 is expected"),
        ("unit.npz", "run from 0 to 1, and -1 to 1 is expected"),
        ("nan.npz", "1 of the first 20 examples"),
        ("empty", "there are no images"),
        ("mixed", "8 x 8 \\(0.png\\), 9 x 9 \\(1.png\\)"),
        ("absent", "no set of samples"),
    ],
)
def test_sets_that_do_not_fit_are_refused(bad, halves, name, words):
    with pytest.raises(InputError, match=words):
        diffjax.score(samples=bad / name, reference=halves / "b.npz", out=bad, features="pixels")


def test_refusals_are_sentences(halves, trained, tmp_path):
    pair = dict(samples=halves / "a.npz", reference=halves / "b.npz", out=tmp_path, features="pixels")
    for options, words in (
        ({}, "nothing to score"),
        (pair | {"metrics": ["fid"]}, "no metric 'fid'"),
        (pair | {"num": 701}, "701 samples are asked for, of a set of 700"),
        (pair | {"steps": 5}, "leave out steps"),
        (pair | {"num": 99}, "at least 100 samples; got 99"),
        (pair | {"features": "inception"}, "6726825d"),
        (dict(workdir=trained, num=0), "at least 1"),
        (dict(workdir=tmp_path), "holds no run"),
    ):
        with pytest.raises(InputError, match=words):
            diffjax.score(**options)

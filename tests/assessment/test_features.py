"""Feature extractors: a row by itself, a classifier that is trained the same twice, what is apart being far apart."""

import json

import jax
import numpy as np
import pytest
import scipy.linalg

from configs import digits as config
from diffjax import nets, training
from diffjax.assessment import classifier, features
from diffjax.assessment.classifier import Recipe
from diffjax.assessment.classifier import classifier as train
from diffjax.assessment.encoders import hash_of
from diffjax.assessment.features import FEATURES, Data, data_of, extractor, stated
from diffjax.data import Source, digits, toy
from diffjax.data.source import from_arrays
from diffjax.errors import InputError
from diffjax.evaluation import Pipeline
from diffjax.experiment import build
from diffjax.interchange import safetensors
from diffjax.interchange.layouts import ENCODERS, Target
from diffjax.interchange.rules import exported, pair

QUICK = Recipe(width=4, features=8, epochs=0, least=5)
PLAIN = Pipeline((0.0, 16.0), "none", 1, (8, 8), "bilinear", (0.5,), (0.5,))


def frechet(a, b):
    """Dowson & Landau 1982, of the Gaussians with their moments."""
    means, covariances = a.mean(0) - b.mean(0), (np.cov(a.T), np.cov(b.T))
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return means @ means + np.trace(covariances[0] + covariances[1] - 2 * root)


@pytest.fixture(scope="module")
def of_digits():
    return data_of(build(config.get_config().to_dict()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def judge(of_digits, folder):
    return extractor({"name": "classifier"}, of_digits, folder)


@pytest.fixture(scope="module")
def heldout(of_digits):
    batch = of_digits.heldout.read(np.arange(300))
    return batch["x"].astype(np.float32) / 8 - 1, batch["label"]


def test_it_is_accurate_and_says_so(judge, heldout):
    x, label = heldout
    found, probabilities = judge.apply(x)
    assert found.shape == (300, judge.dimension) == (300, 64) and probabilities.shape == (300, judge.classes)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    accuracy = np.mean(probabilities.argmax(1) == label)
    assert accuracy >= 0.97 and judge.facts["accuracy"] == pytest.approx(accuracy)
    assert judge.facts["target"] == "classes"


def test_nobody_takes_it_for_the_fid(judge):
    said = json.loads(json.dumps(stated(judge)))
    assert said["name"] == "classifier_digits" and said["frechet"] == "frechet_classifier_digits"
    assert {"hash", "rounding", "resize", "size", "mean", "std", "range", "channels", "dimension", "facts"} <= set(said)


def test_a_row_depends_on_nothing_else(judge, heldout, of_digits, folder, monkeypatch):
    x, _ = heldout
    whole = judge.apply(x)
    for rows in (slice(7, 8), slice(100, 103)):
        for some, all_of_them in zip(judge.apply(x[rows]), whole, strict=True):
            np.testing.assert_array_equal(some, all_of_them[rows])
    alone = training.make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(features.training, "make_mesh", lambda: alone)
    single = extractor({"name": "classifier"}, of_digits, folder)
    for one, eight in zip(single.apply(x[:100]), whole, strict=True):
        np.testing.assert_array_equal(one, eight[:100])


def test_what_is_apart_is_far_apart(judge, heldout):
    x, label = heldout
    noise = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    clean, _ = judge.apply(x[:150])
    distances = [frechet(clean, judge.apply(x[150:] + std * noise[150:])[0]) for std in (0, 0.2, 0.4, 0.8, 1.6)]
    assert all(a < b for a, b in zip(distances, distances[1:], strict=False)) and distances[-1] > 10 * distances[0]
    zeros, ones, others = (judge.apply(x[label == k])[0] for k in (0, 1, 0))
    half = len(others) // 2
    assert frechet(zeros, ones) > 3 * frechet(others[:half], others[half:])


def test_training_is_the_same_twice_and_follows_the_seed(tmp_path):
    source = digits("train")
    first, again, other = (
        train(source, None, PLAIN, tmp_path / str(i), QUICK._replace(seed=seed)) for i, seed in enumerate((0, 0, 1))
    )
    assert hash_of(first.params) == hash_of(again.params) != hash_of(other.params)
    assert first.facts["accuracy"] is None


def test_what_was_trained_is_kept_and_what_is_damaged_is_not_believed(tmp_path, monkeypatch):
    source = digits("train")
    first = train(source, None, PLAIN, tmp_path, QUICK)
    (path,) = tmp_path.glob("classifier_*.npz")
    calls = []
    trained = classifier._trained
    monkeypatch.setattr(classifier, "_trained", lambda *args: calls.append(args) or trained(*args))
    kept = train(source, None, PLAIN, tmp_path, QUICK)
    assert not calls and hash_of(kept.params) == hash_of(first.params) and kept.facts == first.facts
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["head/bias"] = arrays["head/bias"] + 1
    np.savez(path, **arrays)
    assert hash_of(train(source, None, PLAIN, tmp_path, QUICK).params) == hash_of(first.params)
    assert len(calls) == 1
    train(source, None, PLAIN._replace(rounding="round"), tmp_path, QUICK)
    assert len(calls) == 2 and len(list(tmp_path.glob("classifier_*.npz"))) == 2


def test_without_labels_it_learns_which_way_is_up(tmp_path):
    x = digits("train").read(np.arange(400))["x"]
    unlabelled = from_arrays(x, None, low=0.0, high=16.0)
    found = train(unlabelled, unlabelled, PLAIN, tmp_path, Recipe(width=8, epochs=0, least=60))
    assert found.classes == 0 and found.facts["target"] == "rotations"
    assert found.facts["accuracy"] > 0.5
    with pytest.raises(InputError, match="needs labels, or square pictures .* use features 'pixels'"):
        train(from_arrays(x[:, :6], None, low=0.0, high=16.0), None, PLAIN._replace(size=(6, 8)), tmp_path, QUICK)


def test_pixels_are_the_data(tmp_path):
    points = toy("train", size=100)
    one = extractor({"name": "pixels"}, Data("toy", points, None, (-1.0, 1.0)), tmp_path)
    x = np.random.default_rng(0).standard_normal((5, *points.shape)).astype(np.float32)
    found, none = one.apply(x)
    np.testing.assert_array_equal(found, x.reshape(5, -1))
    assert none is None and one.dimension == np.prod(points.shape) and one.hash == ""
    for name in FEATURES:
        if name != "pixels":
            with pytest.raises(InputError, match="no pictures .* use features 'pixels'"):
                extractor({"name": name}, Data("toy", points, None, (-1.0, 1.0)), tmp_path)


@pytest.mark.parametrize("shape, message", [((0, 8, 8, 1), "at least one row"), ((2, 8, 8, 3), r"\[8, 8, 1\]; got")])
def test_rows_of_another_shape_are_refused(judge, shape, message):
    with pytest.raises(InputError, match=message):
        judge.apply(np.zeros(shape, np.float32))


def twin(folder, kind, row, seed=0, **options):
    """A small network with random weights, in a file as its layout has it; variances are positive."""
    net = nets.functional(lambda rngs: nets.ENCODERS[row](rngs=rngs, **options))
    shapes = training.named(jax.eval_shape(net.init, jax.random.key(0)))
    draw = np.random.default_rng(seed)
    ours = {name: draw.standard_normal(leaf.shape).astype(np.float32) for name, leaf in shapes.items()}
    ours = {name: np.abs(a) if name.endswith("var") else 0.3 * a for name, a in ours.items()}
    target = Target({name: leaf.shape for name, leaf in shapes.items()}, options, (), 0)
    if kind == "transformers-clip":  # which has no bias there
        ours["stem/linear/bias"] *= 0
    rows = pair(ENCODERS[kind].rows(target), target.leaves)
    safetensors.write(folder / "model.safetensors", exported(rows, ours))


COLOUR = Data("birds", Source(None, 1, (12, 10, 3)), None, (0.0, 1.0))
VIT = dict(width=64, depth=1, heads=1, patch=14, grid=3)


def test_a_published_network_and_its_hash(tmp_path):
    x = np.random.default_rng(1).uniform(size=(3, 12, 10, 3)).astype(np.float32)
    found = []
    for seed in (0, 0, 1):
        twin(tmp_path, "dinov2", "vision_transformer", seed, **VIT)
        spec = {"name": "dinov2", "weights": str(tmp_path), "size": 28, "rows": 1}
        found.append(extractor(spec, COLOUR, tmp_path))
    assert found[0].hash == found[1].hash != found[2].hash
    answers, none = found[0].apply(x)
    assert answers.shape == (3, 64) and none is None
    np.testing.assert_array_equal(found[1].apply(x[1:2])[0], answers[1:2])
    assert found[0].size == (28, 28) and found[0].resize == "bicubic_antialiased" and found[0].facts["depth"] == 1
    with pytest.raises(InputError, match="multiple of the patch, 14; got 30"):
        extractor({"name": "dinov2", "weights": str(tmp_path), "size": 30}, COLOUR, tmp_path)


def test_clip_reads_pictures_of_its_own_size(tmp_path):
    twin(tmp_path, "transformers-clip", "vision_transformer", **VIT, mlp="quick_gelu", layer_scale=False, pre_norm=True,
         project=8, eps=1e-5)  # fmt: skip
    one = extractor({"name": "clip"}, COLOUR, tmp_path)
    assert one.size == (42, 42) and one.dimension == 8 and one.classes == 0


@pytest.mark.slow
def test_inception_scores_leave_the_bias_out(tmp_path):
    twin(tmp_path, "inception", "inception", thin=16, classes=5)
    x = np.random.default_rng(1).uniform(size=(2, 12, 10, 3)).astype(np.float32)
    unbiased, biased = (
        extractor({"name": "inception", "weights": str(tmp_path), "rows": 1, "logits": kind}, COLOUR, tmp_path)
        for kind in ("unbiased", "biased")
    )
    bias = safetensors.read(tmp_path / "model.safetensors")["fc.bias"]
    (same, one), (features_, other) = unbiased.apply(x), biased.apply(x)
    np.testing.assert_array_equal(same, features_)
    weighed = one * np.exp(bias)
    np.testing.assert_allclose(weighed / weighed.sum(1, keepdims=True), other, rtol=1e-4)


def test_what_is_misspelt_is_refused(of_digits, tmp_path):
    for spec, says in (
        ({"name": "inceptoin"}, "did you mean 'inception'"),
        ({"name": "classifier", "rounding": "up"}, "no rounding 'up'; known"),
        ({"name": "inception", "resize": "area"}, "no resize 'area'"),
        ({"name": "inception"}, "features 'inception' need weights, and there is no"),
    ):
        with pytest.raises(InputError, match=says):
            extractor(spec, of_digits, tmp_path)

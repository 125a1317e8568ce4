"""Feature extractors: what samples are looked at through when they are judged.

    extract = extractor({"name": "classifier"}, data_of(experiment), workdir / "evaluation")
    features, probabilities = extract.apply(x)           # [B, d] and [B, K] or None

A row of FEATURES makes one for a data set.  An `Extractor` says of itself all that its numbers depend on: the weights
by a hash, the pipeline field by field (evaluation/pipeline.py).  Rows are split over the devices, and a row's features
do not depend on the others, nor on how many devices there are.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffjax import evaluation, training
from diffjax.assessment.classifier import Recipe
from diffjax.assessment.classifier import classifier as trained_classifier
from diffjax.assessment.encoders import hash_of, located, read_encoder
from diffjax.data import Source
from diffjax.errors import InputError
from diffjax.evaluation import Pipeline
from diffjax.experiment import Experiment, pick

Found = tuple[Float[np.ndarray, "B d"], Float[np.ndarray, "B K"] | None]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # means and standard deviations of pixels
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TENSORFLOW = (128 / 255,) * 3, (128 / 255,) * 3  # (pixel - 128) / 128


class Data(NamedTuple):
    """What an extractor is told of a data set."""

    name: str
    source: Source  # of which a classifier learns
    heldout: Source | None  # on which it is judged
    range: tuple[float, float]  # of x, here and in samples


class Extractor(NamedTuple):
    """apply: x [B, *S] in the data's range -> (features [B, dimension], probabilities [B, classes] or None)."""

    name: str
    apply: Callable[[np.ndarray], Found]
    dimension: int
    classes: int  # 0: no probabilities
    hash: str  # of the weights; "" if there are none
    facts: dict[str, Any]  # of the network
    range: tuple[float, float]
    # The pipeline, of pictures alone.
    rounding: str = "none"
    channels: int = 0
    size: tuple[int, int] = (0, 0)
    resize: str = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def frechet(self) -> str:
        """What the Frechet distance of these features is called."""
        return f"frechet_{self.name}"


def stated(one: Extractor) -> dict[str, Any]:
    """All that the numbers of an extractor depend on, as JSON reads it."""
    return {key: value for key, value in one._asdict().items() if key != "apply"} | {"frechet": one.frechet}


def extractor(spec: Mapping[str, Any], data: Data, folder: str | Path) -> Extractor:
    """The row of FEATURES that spec["name"] names, with spec's other entries as its options; None is as left out.

    `folder` holds published weights, and what is trained here.  Raises InputError for what cannot be.
    """
    spec = {key: value for key, value in spec.items() if value is not None}
    return pick(FEATURES, "features", spec, data, Path(folder))


def data_of(experiment: Experiment) -> Data:
    """The data of an experiment, by the name of their kind and of their set."""
    spec = experiment.config["data"]
    whose = spec.get("dataset") or Path(str(spec.get("path", "")).replace("{split}", "")).name
    name = re.sub(r"\W+", "_", f"{spec['name']} {whose}").strip("_")
    return Data(name, experiment.source, experiment.heldout, tuple(spec["range"]))


def classifier(data: Data, folder: Path, *, rounding: str = "round", seed: int = 0, rows: int = 64) -> Extractor:
    """64 features of a classifier that was trained on the data themselves: good for what no published network knows.

    Its numbers compare models of one data set, and are no FID.  Pictures with a side over 64 are made smaller.
    """
    side = 64 / max(64, *data.source.shape[:2])
    size = tuple(max(1, round(n * side)) for n in data.source.shape[:2])
    channels = data.source.shape[-1]
    middle = (0.5,) * channels
    pipeline = _pipeline(data, rounding, channels, size, "bilinear_antialiased", (middle, middle))
    learned = trained_classifier(data.source, data.heldout, pipeline, folder, Recipe(seed=seed))

    def run(params, x):
        features, logits = learned.net.apply(params, x)
        return features, jax.nn.softmax(logits) if learned.classes else None

    name = f"classifier_{data.name}"
    return _extractor(name, run, learned.params, pipeline, rows=rows, shape=data.source.shape, facts=learned.facts)


def inception(
    data: Data, folder: Path, *, weights: str = "", rounding: str = "round", resize: str = "bilinear_corners",
    logits: str = "unbiased", rows: int = 32,
) -> Extractor:  # fmt: skip
    """The 2,048 features of which the FID is the Frechet distance (Heusel et al. 2017), and 1,008 probabilities.

    The default resize is that of the original; clean-fid's is "bicubic_antialiased", pytorch-fid's "bilinear".
    Probabilities leave out the last layer's bias, as the original Inception Score does, unless `logits` is "biased".
    """
    if logits not in ("unbiased", "biased"):
        raise ValueError(f"logits must be 'unbiased' or 'biased'; got '{logits}'")
    pipeline = _pipeline(data, rounding, 3, (299, 299), resize, TENSORFLOW)
    path = located("inception", weights, folder)
    encoder = read_encoder(path, ["inception"])

    def run(params, x):
        features, found = encoder.net.apply(params, x)
        return features, jax.nn.softmax(found - (logits == "unbiased") * params["head"]["bias"][None])

    facts = {"file": path.name, "layout": encoder.layout, "logits": logits}
    return _extractor("inception", run, encoder.params, pipeline, rows=rows, shape=data.source.shape, facts=facts)


def dinov2(
    data: Data, folder: Path, *, weights: str = "", rounding: str = "round", resize: str = "bicubic_antialiased",
    size: int = 224, rows: int = 32,
) -> Extractor:  # fmt: skip
    """The class token of DINOv2 (Oquab et al. 2024), which sees what people see (Stein et al. 2023)."""
    pipeline = _pipeline(data, rounding, 3, (size, size), resize, IMAGENET)
    path = located("dinov2", weights, folder)
    encoder = read_encoder(path, ["dinov2", "transformers-dinov2"])
    if size % encoder.options["patch"]:
        raise ValueError(f"size must be a multiple of the patch, {encoder.options['patch']}; got {size}")
    return _tokens("dinov2", path, encoder, pipeline, rows=rows, shape=data.source.shape)


def clip(
    data: Data, folder: Path, *, weights: str = "", rounding: str = "round", resize: str = "bicubic_antialiased",
    rows: int = 32,
) -> Extractor:  # fmt: skip
    """What the vision tower of CLIP (Radford et al. 2021) projects into the space that it shares with texts."""
    _pipeline(data, rounding, 3, (224, 224), resize, OPENAI)  # before a large file is read
    path = located("clip", weights, folder)
    encoder = read_encoder(path, ["transformers-clip"])
    side = encoder.options["grid"] * encoder.options["patch"]
    pipeline = _pipeline(data, rounding, 3, (side, side), resize, OPENAI)
    return _tokens("clip", path, encoder, pipeline, rows=rows, shape=data.source.shape)


def pixels(data: Data, folder: Path) -> Extractor:
    """The numbers themselves, in a line: for data that are no pictures."""

    def apply(x):
        x = _required(x, data.source.shape)
        return x.reshape(len(x), -1), None

    dimension = int(np.prod(data.source.shape))
    return Extractor("pixels", apply, dimension, classes=0, hash="", facts={}, range=data.range)


FEATURES = {"classifier": classifier, "inception": inception, "dinov2": dinov2, "clip": clip, "pixels": pixels}


def _pipeline(data: Data, rounding: str, channels: int, size: Any, resize: str, normal: tuple) -> Pipeline:
    pipeline = Pipeline(data.range, rounding, channels, size, resize, *normal)
    return evaluation.checked(pipeline, data.source.shape)


def _tokens(name, path, encoder, pipeline, *, rows, shape) -> Extractor:
    """Of a vision transformer."""

    def run(params, x):
        return encoder.net.apply(params, x), None

    facts = {"file": path.name, "layout": encoder.layout, "width": encoder.options["width"]}
    facts |= {"depth": encoder.options["depth"], "patch": encoder.options["patch"]}
    return _extractor(name, run, encoder.params, pipeline, rows=rows, shape=shape, facts=facts)


def _extractor(
    name: str, run: Callable, params: Any, pipeline: Pipeline, *, rows: int, shape: tuple[int, ...], facts: dict
) -> Extractor:
    """(params, prepared pictures) -> (features, probabilities) as an Extractor."""

    def whole(params, x):
        return run(params, evaluation.prepare(pipeline, x))

    like = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    features, probabilities = jax.eval_shape(whole, params, like)
    return Extractor(
        name, _sharded(whole, params, rows=rows, shape=shape), features.shape[1],
        classes=0 if probabilities is None else probabilities.shape[1], hash=hash_of(params), facts=facts,
        **pipeline._asdict(),
    )  # fmt: skip


def _sharded(run: Callable, params: Any, *, rows: int, shape: tuple[int, ...]) -> Callable[[np.ndarray], Found]:
    """Every device sees `rows` rows at a time, always as many, so that one program answers and answers alike."""
    if rows < 1:
        raise InputError(f"a device must see at least 1 row at a time; got rows={rows}")
    mesh = training.make_mesh()
    sharding, size = training.batch_sharding(mesh), rows * training.row_parts(mesh)
    params = jax.device_put(params, training.replicated(mesh))
    compiled = jax.jit(run, out_shardings=sharding)

    def apply(x):
        x, parts = _required(x, shape), []
        for first in range(0, len(x), size):
            some = x[np.minimum(np.arange(first, first + size), len(x) - 1)]
            answers = compiled(params, training.spread({"x": some}, sharding)["x"])
            parts.append(jax.tree.map(lambda a: training.to_host(a)[: len(x) - first], answers))  # noqa: B023
        return jax.tree.map(lambda *some: np.concatenate(some), *parts)

    return apply


def _required(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    x = np.asarray(x, np.float32)
    if x.shape[1:] != shape or not len(x):
        raise InputError(f"features are of at least one row of shape {list(shape)}; got an array {list(x.shape)}")
    return x

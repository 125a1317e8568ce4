"""Sets of examples that are scored: drawn from a run, or stored as arrays or pictures.

A stored set is a folder that sample.py wrote, a .npz file with x and maybe label, or a folder of square pictures of one
size.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from diffjax import data
from diffjax.data import DATASETS, Source
from diffjax.errors import InputError
from diffjax.model import Model
from diffjax.sampler import described

FEW = 1000  # examples whose values are looked at before the work begins


class Samples(NamedTuple):
    """What is scored, and what a passport says of it."""

    count: int
    batches: Callable[[], Iterator[tuple[np.ndarray, np.ndarray | None]]]  # x [b, *S] in the data range, label [b]
    labels: str | None  # how they were chosen
    sampler: dict[str, Any] | None
    hash: str | None  # of stored ones


class Reference(NamedTuple):
    """A source that was read once from end to end."""

    name: str
    source: Source
    hash: str
    frequencies: np.ndarray | None  # of its classes


def survey(name: str, source: Source, *, batch: int = 1000) -> Reference:
    """Raises InputError for an example that cannot be read."""
    hash, counts = _contents(source, batch)
    return Reference(name, source, hash, counts / source.size if source.classes else None)


def _contents(source: Source, batch: int) -> tuple[str, np.ndarray]:
    """(16 hex digits of all examples, how many there are of each class)."""
    seen, counts = hashlib.sha256(f"{source.shape}{source.low}{source.high}".encode()), np.zeros(source.classes)
    for rows in _read(source, batch):
        seen.update(np.ascontiguousarray(rows["x"]).tobytes())
        if source.classes:
            counts += np.bincount(rows["label"], minlength=source.classes)
    return seen.hexdigest()[:16], counts


def file_of(path: str | Path) -> Path:
    """What is read of a stored set: the arrays of a folder that sample.py wrote, or what is named."""
    path = Path(path)
    return path / "samples.npz" if (path / "samples.npz").exists() else path


def stored(path: str | Path, *, shape: tuple[int, ...] | None, value_range: tuple[float, float]) -> Source:
    """A set in files.  Raises InputError for none, another shape than `shape`, and values in another range."""
    file = file_of(path)
    if file.suffix == ".npz":
        source = DATASETS["npz"]("train", path=str(file))
    elif file.is_dir():
        source = _pictures(file, shape)
    else:
        raise InputError(f"{path} is no set of samples; name a folder of pictures, or a .npz file with x")
    if shape is not None and source.shape != shape:
        raise InputError(f"{path} holds {_times(source.shape)}, the other set {_times(shape)}; make them alike")
    _require_range(file, source, value_range)
    return source


def _pictures(folder: Path, shape: tuple[int, ...] | None) -> Source:
    """Pictures as they are: none is cut or resized."""
    channels = shape[-1] if shape is not None and len(shape) == 3 else 3
    paths = DATASETS["folder"]("train", path=str(folder), size=1, channels=channels).read.paths
    sizes = {}
    for path in paths:
        try:
            with Image.open(path) as picture:
                sizes.setdefault(picture.size, Path(path).name)
        except OSError as error:
            raise InputError(f"{path} is no picture that can be read ({error}); mend it or take it away") from error
    if len(sizes) > 1 or any(width != height for width, height in sizes):
        told = ", ".join(f"{width} x {height} ({name})" for (width, height), name in list(sizes.items())[:3])
        raise InputError(f"the pictures in {folder} must be squares of one size; got {told}; resize them first")
    return DATASETS["folder"]("train", path=str(folder), size=next(iter(sizes))[0], channels=channels)


def _require_range(file: Path, source: Source, value_range: tuple[float, float]) -> None:
    """Values of no declared range must be in the data's, give or take what samples overshoot."""
    if source.low is not None:
        return
    x = source.read(np.arange(min(FEW, source.size)))["x"]
    if bad := int((~np.isfinite(x).reshape(len(x), -1).all(1)).sum()):
        raise InputError(f"{bad} of the first {len(x)} examples in {file} are not finite; mend them or leave them out")
    (low, high), (least, most) = value_range, (float(x.min()), float(x.max()))
    reach, picture = (high - low) / 2, len(source.shape) == 3
    if picture and (least < low - reach or most > high + reach or least >= low + reach):
        raise InputError(
            f"the values in {file} run from {least:g} to {most:g}, and {low:g} to {high:g} is expected; scale them, or "
            f"store pictures as uint8"
        )


def scaled(
    source: Source, value_range: tuple[float, float], *, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """All examples in batches: x [b, *S] in this range, and labels [b] if there are any."""
    for rows in _read(source, batch):
        yield data.scaled(rows["x"], source, value_range), rows.get("label")


def kept(source: Source, value_range: tuple[float, float], *, count: int | None, batch: int) -> Samples:
    """Stored examples, the first `count` of them or all.  Raises InputError if there are fewer."""
    if count is not None and not 1 <= count <= source.size:
        raise InputError(f"{count} samples are asked for, of a set of {source.size}; ask for at most that many")
    some = source if count is None else source._replace(size=count)
    labels, (hash, _) = "as stored" if source.classes else None, _contents(some, batch)
    return Samples(some.size, partial(scaled, some, value_range, batch=batch), labels, None, hash)


def drawn(
    model: Model, frequencies: np.ndarray | None, *, num: int, seed: int, batch: int,
    labels: Sequence[int] | None = None, **chosen: Any,
) -> Samples:  # fmt: skip
    """Drawn from a model, with these classes in turn, or else with classes as frequent as in what it was trained on."""
    classes = model.experiment.source.classes
    if num < 1:
        raise InputError(f"the number of samples must be at least 1; got {num}")
    how, each = None, labels
    if classes and labels is None:
        how = "as frequent as in the training data"
        each = np.random.default_rng(seed).choice(classes, size=num, p=frequencies)
    elif labels is not None:
        how = f"{list(labels)} in turn"
    made = None if each is None else np.resize(np.asarray(each, np.int32), num)

    def batches():
        first = 0
        for x in model.stream(jax.random.key(seed), num, labels=made, batch=batch, **chosen):
            yield x, None if made is None else made[first : first + len(x)]
            first += len(x)

    facts = described(model.experiment, **{key: value for key, value in chosen.items() if value is not None})
    return Samples(num, batches, how, facts, None)


def _read(source: Source, batch: int) -> Iterator[data.Batch]:
    for first in range(0, source.size, batch):
        yield data.read(source, np.arange(first, min(first + batch, source.size)))


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

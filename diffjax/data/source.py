"""The noun of this room: a finite data set that is addressed by index."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from diffjax.errors import InputError

Batch = dict[str, np.ndarray]


class Source(NamedTuple):
    """A data set.  `read` takes indices [n] and returns x [n, *S] as stored and, if there are classes, label int32 [n].

    Everything in it can be pickled, so that worker processes can read too.
    """

    read: Callable[[Int[np.ndarray, "n"]], Batch]
    size: int
    shape: tuple[int, ...]  # S: (H, W, C) for images
    classes: int = 0  # 0: no labels
    low: float | None = None  # what x is stored in, as in 0..255; None: values are used as they are
    high: float | None = None
    unit: str = "examples"
    in_memory: bool = True


class Arrays(NamedTuple):
    """Reading from memory."""

    x: np.ndarray
    label: np.ndarray | None

    def __call__(self, indices: Int[np.ndarray, "n"]) -> Batch:
        batch = {"x": self.x[indices]}
        return batch if self.label is None else batch | {"label": self.label[indices].astype(np.int32)}


def from_arrays(x: np.ndarray, label: np.ndarray | None, *, classes: int = 0, **facts) -> Source:
    """A source in memory.  Raises InputError unless there is a label in 0..classes - 1 for every example."""
    if x.size == 0:
        raise InputError(f"the data set is empty, of shape {x.shape}; expected at least one example")
    if x.dtype.kind not in "biuf":
        raise InputError(f"examples must be real numbers; got dtype {x.dtype}")
    if label is not None:
        if label.shape != x.shape[:1]:
            raise InputError(f"there are {len(x)} examples, and labels of shape {label.shape}; give each a label")
        if not np.issubdtype(label.dtype, np.integer):
            raise InputError(f"labels must be whole numbers; got dtype {label.dtype}")
        if label.min() < 0 or label.max() >= classes:
            raise InputError(f"labels must lie in 0..{classes - 1}; got {label.min()}..{label.max()}")
    return Source(Arrays(x, label), len(x), x.shape[1:], classes if label is not None else 0, **facts)


def absent(indices: Int[np.ndarray, "n"]) -> Batch:
    """`read` of a data set of which no more than size, shape and classes are needed.  Raises InputError."""
    raise InputError("this source knows the size, shape and classes of its data, but does not hold it")


def digest(source: Source, count: int) -> str:
    """16 hex digits of so many evenly spaced examples, which stand for the data."""
    seen = hashlib.sha256()
    for name, values in sorted(source.read(np.linspace(0, source.size - 1, count).astype(np.int64)).items()):
        seen.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return seen.hexdigest()[:16]


def describe(source: Source, value_range: tuple[float, float]) -> str:
    """One line: how many of what, in which classes and range."""
    shape = " x ".join(map(str, source.shape))
    labels = f"{source.classes} classes" if source.classes else "no labels"
    stored = source.low is not None
    values = (
        f"values {source.low:g}..{source.high:g} as {value_range[0]:g}..{value_range[1]:g}"
        if stored
        else "values as they are"
    )
    return f"{source.size:,} {source.unit} of {shape}, {labels}, {values}"

"""The noun of this room: a finite, index-addressed data set.

A Source answers one question, "what are the examples at these indices?", with values as they are stored.  Order, batches,
scaling and augmentation belong to the loader, so that a row of the table of data sets only has to know where its examples
are.  `read` must be picklable (a `functools.partial` of a module function), because worker processes receive a copy.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Num, Shaped

from diffjax.errors import InputError

Examples = dict[str, Shaped[np.ndarray, "n ..."]]


class Source(NamedTuple):
    """A data set of `size` examples of `shape` [*S]; images are [H, W, C]."""

    read: Callable[[Int[np.ndarray, "n"]], Examples]  # {"x": [n, *S] as stored, "label": int32 [n] if classes > 0}
    size: int
    shape: tuple[int, ...]
    classes: int  # labels are 0 .. classes - 1; 0 classes: no labels
    low: float | None  # the range of the stored values; None: they are used as they are
    high: float | None
    unit: str  # "images" or "points"
    in_memory: bool  # reading costs a copy, nothing else
    names: tuple[str, ...] = ()  # of the classes, where known


def describe(source: Source, value_range: tuple[float, float] = (-1.0, 1.0)) -> str:
    """One line for a log: how many examples, their shape, their classes and their range, stored and as trained on."""
    shape = "x".join(map(str, source.shape)) or "scalar"
    classes = f"{source.classes} classes" if source.classes else "no labels"
    values = "values as stored"
    if source.low is not None:
        values = f"values {source.low:g}..{source.high:g} as {value_range[0]:g}..{value_range[1]:g}"
    return f"{source.size} {source.unit} of {shape}, {classes}, {values}"


def from_arrays(
    x: Num[np.ndarray, "n *S"],
    label: Int[np.ndarray, "n"] | None = None,
    classes: int = 0,
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "points",
) -> Source:
    """The Source of arrays that are already in memory; without `label` there are no classes."""
    arrays = {"x": x} if label is None else {"x": x, "label": label.astype(np.int32)}
    return Source(
        read=functools.partial(_take, arrays),
        size=len(x),
        shape=x.shape[1:],
        classes=0 if label is None else classes,
        low=low,
        high=high,
        unit=unit,
        in_memory=True,
    )


def _take(arrays: Examples, indices: Int[np.ndarray, "n"]) -> Examples:
    return {name: array[indices] for name, array in arrays.items()}


def locate(path: str, split: str) -> str:
    """`path` with the split's name in place of "{split}"; without one, the path holds the training split alone.

    Raises:
      InputError: for an empty path, or another split of a path that names none.
    """
    if not path:
        raise InputError("the data set has no path; set path to where the data lie")
    if "{split}" not in path and split != "train":
        raise InputError(f"'{path}' holds one split, not '{split}'; put {{split}} in path, or set heldout to ''")
    return path.replace("{split}", split)

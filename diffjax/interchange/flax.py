"""diffusers' Flax weights by its torch names: blocks_0/conv1/kernel is blocks.0.conv1.weight, and lies as it does."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import msgpack
from .lazy import Lazy

RENAMED = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def read(path: str | Path) -> Lazy:
    """The arrays of a file of msgpack.  Raises InputError if it is none."""
    return as_torch(msgpack.read(path))


def as_torch(arrays: Mapping[str, np.ndarray]) -> Lazy:
    """The same arrays, arranged as torch does, when they are looked at."""
    places = {_name(name): name for name in arrays}

    def content(name):
        array = arrays[places[name]]
        return np.moveaxis(array, (-1, -2), (0, 1)) if places[name].endswith("/kernel") else array

    return Lazy(tuple(places), content)


def _name(name: str) -> str:
    *modules, leaf = name.split("/")
    return ".".join([*(re.sub(r"_(\d+)$", r".\1", module) for module in modules), RENAMED.get(leaf, leaf)])

"""What a layout says of another library's weights, and of which network of ours they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffjax.errors import InputError

from ..forms import Kind
from ..lazy import Lazy
from ..rules import Leaves, Row

Arrays = Mapping[str, np.ndarray]


class Target(NamedTuple):
    """A network of ours: the shapes of its parameters, its options with their defaults, its data."""

    leaves: Leaves
    net: Mapping[str, Any]
    shape: tuple[int, ...]
    classes: int


class Facts(NamedTuple):
    """What a file says of its network: options that the config's net gets, and its data if that is said too."""

    net: Mapping[str, Any] = {}
    shape: tuple[int, ...] | None = None
    classes: int | None = None


class Layout(NamedTuple):
    rows: Callable[[Target], Sequence[Row]]
    nets: tuple[str, ...]  # the rows of NETS that it can hold
    roots: tuple[str, ...] = ()  # where in a file the weights may be, the best first; else they are all of it
    fixed: Callable[[Target], dict[str, np.ndarray]] = lambda target: {}  # arrays of theirs that are none of ours
    renamed: Callable[[Arrays], Arrays] = lambda arrays: arrays  # older names of theirs as the newest
    # of a config.json and the arrays:
    facts: Callable[[Mapping[str, Any], Arrays], Facts] = lambda said, arrays: Facts()


def chosen(layout: Layout, arrays: Arrays, at: str | None = None) -> Arrays:
    """The weights in a file: those below `at`, or below the first root that is there, or all."""
    roots = layout.roots if at is None else (at,) if at else ()
    for root in roots:
        inside = {name[len(root) + 1 :]: name for name in arrays if name.startswith(f"{root}.")}
        if inside:
            return layout.renamed(view(arrays, inside))
    if at:
        tops = ", ".join(dict.fromkeys(name.split(".")[0] for name in arrays))
        raise InputError(f"the file has nothing below '{at}'; at its top there are: {tops}")
    return layout.renamed(arrays)


def view(arrays: Arrays, names: Mapping[str, str]) -> Arrays:
    """Arrays by other names, {new: old}, still read when they are looked at."""
    return Lazy(tuple(names), lambda name: arrays[names[name]])


def modules(ours: str, theirs: str, table: Mapping[str, tuple[str, Kind]]) -> list[Row]:
    """The rows of a block, whose table is {ours: (theirs, kind)}."""
    return [Row(f"{ours}/{name}", f"{theirs}.{there}", kind) for name, (there, kind) in table.items()]


def drawn(arrays: Arrays, name: str) -> Facts:
    """The frequencies of the level, if the file has them at `name`: drawn once, so that no config could say them."""
    if name not in arrays:
        return Facts()
    return Facts({"features": "listed", "frequencies": {"frequencies": tuple(arrays[name].astype(float).tolist())}})


def listed(target: Target, name: str) -> dict[str, np.ndarray]:
    """The same as an array of theirs, if the net has them."""
    if target.net["features"] != "listed":
        return {}
    return {name: np.asarray(target.net["frequencies"]["frequencies"], np.float32)}


def heads_of(channels: int, net: Mapping[str, Any]) -> int:
    """The number of heads of a convolutional network at so many channels (docs/networks.md)."""
    widest = max(channels // net["head_width"], 1)
    return net.get("heads") or next(h for h in range(widest, 0, -1) if channels % h == 0)

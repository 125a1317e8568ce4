"""Which of their arrays is which of ours, from one table for both directions.

A `Row` says of a module of ours, named by a pattern, which modules of theirs it is and of what kind (forms.py):

    Row(r"down/(\\d+)/blocks/(\\d+)/conv1", "down_blocks.{}.resnets.{}.conv1", CONV)

`pair` walks the parameters of a network, so that the table follows its topology and no config is read twice.  An array
of theirs is used once and a parameter of ours is filled once, or nothing is converted.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from diffjax.errors import InputError

from .forms import Form, Kind, Shape

Leaves = Mapping[str, Shape]  # 'down/0/blocks/1/conv1/kernel' -> its shape


class Row(NamedTuple):
    ours: str  # a pattern of module paths
    theirs: str | Sequence[str] | Callable[..., str | Sequence[str]]  # templates, or a function, of its numbers
    kind: Kind


class Pair(NamedTuple):
    """One array of ours and those of theirs that it is made of."""

    ours: str
    theirs: tuple[str, ...]
    form: Form


def pair(rows: Iterable[Row], leaves: Leaves) -> list[Pair]:
    """The pairs of all parameters.  Raises InputError, naming the first, for one that no row or several speak of."""
    rows, pairs = list(rows), []
    for leaf in leaves:
        path, _, name = leaf.rpartition("/")
        found = [(row, match) for row in rows if name in row.kind and (match := re.fullmatch(row.ours, path))]
        if len(found) != 1:
            many = "several places" if found else "no place"
            raise InputError(f"this layout has {many} for our '{leaf}'; it is of another kind of net than the config's")
        ((row, match),) = found
        said, form = row.kind[name]
        suffixes = (said,) if isinstance(said, str) else said
        modules = _modules(row, [int(group) if group.isdigit() else group for group in match.groups()])
        pairs.append(
            Pair(leaf, tuple(f"{module}.{suffix}".lstrip(".") for module in modules for suffix in suffixes), form)
        )
    used = Counter(name for one in pairs for name in one.theirs)
    for name, times in used.items():
        if times > 1:
            raise InputError(f"this layout uses '{name}' for {times} parameters of this net; it is of another kind")
    return pairs


def imported(
    pairs: Sequence[Pair], leaves: Leaves, arrays: Mapping[str, np.ndarray], *,
    fixed: Mapping[str, np.ndarray] | None = None, progress: Callable[[Sequence[Pair]], Iterable[Pair]] = iter,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Ours of theirs, in float32.  `fixed` are arrays of theirs that must have these values and are none of ours.

    Raises InputError, naming the first array that is missing, has another shape, or is used for nothing.
    """
    fixed = fixed or {}
    needed = {name: one.ours for one in pairs for name in one.theirs} | dict.fromkeys(fixed, "")
    missing = [name for name in needed if name not in arrays]
    if missing:
        use = f"of which our '{needed[missing[0]]}' is made" if needed[missing[0]] else "which this layout expects"
        raise InputError(f"the file lacks '{missing[0]}', {use}{_more(missing)}; is the config of the same net?")
    unused = [name for name in arrays if name not in needed]
    if unused:
        shape = list(arrays[unused[0]].shape)
        raise InputError(
            f"the file has '{unused[0]}' {shape}, for which the config's net has no place{_more(unused)}; is the "
            f"config of the same net?"
        )
    for name, value in fixed.items():
        _require_close(name, arrays[name], value)
    ours = {}
    for one in progress(pairs):
        theirs = [arrays[name] for name in one.theirs]
        wanted = one.form.theirs(np.zeros(leaves[one.ours], np.float32))
        for name, array, like in zip(one.theirs, theirs, wanted, strict=True):
            if array.shape != like.shape:
                raise InputError(
                    f"'{name}' is {list(array.shape)} in the file and would be {list(like.shape)} for our "
                    f"'{one.ours}' {list(leaves[one.ours])}; change the config's net"
                )
        try:
            made = one.form.ours([np.asarray(array, np.float32) for array in theirs], leaves[one.ours])
        except ValueError as error:
            raise InputError(f"our '{one.ours}' cannot be made of '{one.theirs[0]}' and its like: {error}") from None
        ours[one.ours] = np.ascontiguousarray(made)
    return ours


def exported(
    pairs: Sequence[Pair], arrays: Mapping[str, np.ndarray], *, fixed: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Theirs of ours.  Raises InputError for what the other library cannot hold."""
    theirs = dict(fixed or {})
    for one in pairs:
        try:
            theirs |= zip(one.theirs, one.form.theirs(np.asarray(arrays[one.ours])), strict=True)
        except ValueError as error:
            raise InputError(f"our '{one.ours}' cannot be exported: {error}") from None
    return theirs


def _modules(row: Row, numbers: Sequence[int | str]) -> Sequence[str]:
    found = row.theirs(*numbers) if callable(row.theirs) else row.theirs
    names = [found] if isinstance(found, str) else found
    return names if callable(row.theirs) else [name.format(*numbers) for name in names]


def _require_close(name: str, array: np.ndarray, value: np.ndarray) -> None:
    got, expected = list(array.shape), list(value.shape)
    if got != expected:
        raise InputError(f"'{name}' is {got} in the file and would be {expected} here; change the config's net")
    error = np.abs(np.asarray(array, np.float64) - value).max(initial=0)
    if not error <= 1e-5 * max(np.abs(value).max(initial=0), 1):
        raise InputError(f"'{name}' is fixed here, and in the file it differs by {error:.2g}; no option changes it")


def _more(names: Sequence[str]) -> str:
    return f" ({len(names) - 1} more like it)" if len(names) > 1 else ""

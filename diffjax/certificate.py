"""A certificate of parity: what every module of a network answers, beside what was recorded of the original.

The recording is an .npz: `x`, `level` as our network reads it, `label` if there are classes, `output`, and beside these
the answers of modules by their names, ours or theirs.  Channels may come first or last.  A module of theirs is one of
ours if both hold the same parameters.  Norms and embeddings are not compared, for an activation that follows belongs to
them here and to nobody there; nor layers whose outputs come in another order.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.errors import InputError
from diffjax.experiment import Experiment, build
from diffjax.interchange import npz
from diffjax.interchange.rules import Pair
from diffjax.nets import NETS
from diffjax.nets.capture import capture

INPUTS = "x", "level", "label", "output"
APART = "norm", "norm1", "norm2", "embed"  # modules of ours whose answers mean something else


class Row(NamedTuple):
    module: str
    error: float  # greatest absolute difference
    size: float  # greatest absolute value of theirs


class Certificate(NamedTuple):
    modules: list[Row]  # in the order in which they answered
    output: Row
    unknown: list[str]  # recorded, and not compared

    def __str__(self) -> str:
        width = max(len(row.module) for row in (*self.modules, self.output))
        lines = [f"{row.module:{width}s}  {row.error:8.1e}  of {row.size:.3g}" for row in (*self.modules, self.output)]
        worst = max((*self.modules, self.output), key=lambda row: row.error)
        some = ", ".join(self.unknown[:3]) + (", ..." if len(self.unknown) > 3 else "")
        lines += [f"not compared, of {len(self.unknown) + len(self.modules)} recorded: {len(self.unknown)} ({some})"]
        return "\n".join([*lines, f"max error {worst.error:.1e} at {worst.module}"])


def certify(experiment: Experiment, params: Any, recording: str | Path, pairs: Sequence[Pair]) -> Certificate:
    """Compare with a recording.  Raises InputError if there is nothing in it to compare with."""
    recorded = npz.read(recording)
    for name in ("x", "level", "output"):
        if name not in recorded:
            raise InputError(f"{recording} has no '{name}'; it needs x, level, output, and label if there are classes")
    x = jnp.asarray(_arranged("x", recorded["x"], (len(recorded["x"]), *experiment.source.shape)))
    label = jnp.asarray(recorded["label"], jnp.int32) if "label" in recorded else None
    net = experiment.config["net"]
    if "remat" in inspect.signature(NETS[net["name"]]).parameters:  # what is computed again cannot be seen
        experiment = build({**experiment.config, "net": {**net, "remat": "none"}}, source=experiment.source)
    output, ours = _answers(experiment.net.apply, params, x, jnp.asarray(recorded["level"], jnp.float32), label)
    names = _same(pairs)
    rows, unknown = {}, []
    for name, theirs in recorded.items():
        module = name if name in ours else names.get(name)
        if module in ours:
            rows[module] = _row(module, ours[module], theirs)
        elif name not in INPUTS:
            unknown.append(name)
    return Certificate([rows[m] for m in ours if m in rows], _row("output", output, recorded["output"]), unknown)


def _answers(apply: Callable, *told: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What a network answers, and what its modules do, in one compiled program."""
    paths: list[str] = []

    def run(*told):
        with capture() as seen:
            output = apply(*told)
        paths[:] = [path for path, _ in seen]
        return output, [array for _, array in seen]

    output, arrays = jax.device_get(jax.jit(run)(*told))
    return output, _by_call(zip(paths, arrays, strict=True))


def _by_call(seen: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """'blocks/attention' that answers three times is 'blocks/0/attention', 'blocks/1/attention', ..."""
    seen = list(seen)
    times, before, found = Counter(path for path, _ in seen), Counter(), {}
    for path, array in seen:
        first, _, rest = path.partition("/")
        found[path if times[path] == 1 else f"{first}/{before[path]}/{rest}".rstrip("/")] = array
        before[path] += 1
    return {path: array for path, array in found.items() if path and path.split("/")[-1] not in APART}


def _same(pairs: Iterable[Pair]) -> dict[str, str]:
    """Their modules -> ours with the same parameters; of several that have the same, the innermost."""
    ours: dict[str, set[str]] = {}
    theirs: dict[str, set[str]] = {}
    altered = set()
    for one in pairs:
        first, _, rest = one.ours.partition("/")
        for i, name in enumerate(one.theirs):
            block = i * one.form.depth // len(one.theirs)
            mine = f"{first}/{block}/{rest}" if one.form.depth > 1 else one.ours
            altered |= set() if one.form.plain else {name.rpartition(".")[0]}
            for group, path, sign in ((ours, mine, "/"), (theirs, name, ".")):
                parts = path.split(sign)
                for k in range(1, len(parts)):
                    group.setdefault(sign.join(parts[:k]), set()).add(mine)
    inmost = lambda group: {frozenset(held): path for path, held in sorted(group.items(), key=_depth)}  # noqa: E731
    mine, known = inmost(ours), inmost(theirs)
    return {path: mine[held] for held, path in known.items() if held in mine and path not in altered}


def _depth(entry: tuple[str, Any]) -> int:
    return len(entry[0])


def _row(name: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    theirs = _arranged(name, theirs, ours.shape)
    return Row(name, float(np.abs(ours - theirs).max(initial=0)), float(np.abs(theirs).max(initial=0)))


def _arranged(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Channels last, and positions in as many axes as here."""
    if array.shape != shape and array.ndim > 2 and array.shape[-1] != shape[-1]:
        array = np.moveaxis(array, 1, -1)
    if array.size != np.prod(shape) or (array.ndim > 2 and array.shape[-1] != shape[-1]):
        got, expected = list(array.shape), list(shape)
        raise InputError(f"'{name}' was recorded as {got} and is {expected} here; record the same batch")
    return array.reshape(shape)

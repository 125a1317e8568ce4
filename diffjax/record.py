"""What identifies a run: its config, its data and the libraries, in workdir/config.json.

It is written before the first step, and compared whenever the run continues.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffjax.errors import InputError
from diffjax.experiment import FREE_PARTS, Experiment


def describe(experiment: Experiment) -> dict[str, Any]:
    """What identifies a run, as JSON reads it back."""
    source = experiment.source
    versions = {module.__name__: module.__version__ for module in (jax, np)}
    described = {"size": source.size, "shape": source.shape, "classes": source.classes}
    return json.loads(json.dumps({"config": experiment.config, "data": described, "versions": versions}))


def read_record(workdir: Path) -> dict[str, Any] | None:
    """What identifies the run in a workdir, or None.  Raises InputError if its config.json is damaged."""
    path = workdir / "config.json"
    try:
        record = json.loads(path.read_text())
        return {key: dict(record[key]) for key in ("config", "data")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot use workdir {workdir}: its config.json cannot be read ({type(error).__name__}: {error}); "
            f"repair it, for the meta of every checkpoint holds a copy, or choose another workdir"
        ) from error


def claim(workdir: Path, record: Mapping[str, Any], *, allow_changes: bool) -> None:
    """Make the workdir, or compare the record with that of the run in it."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot use workdir {workdir}: {error}; choose another") from error
    saved = read_record(workdir)
    if saved is not None:
        _compare(workdir, saved, record, allow_changes=allow_changes)
    elif any((workdir / "checkpoints").glob("[0-9]*")):
        raise InputError(
            f"{workdir} holds checkpoints but no config.json to compare with; restore it or choose another workdir"
        )


def write_record(workdir: Path, record: Mapping[str, Any]) -> None:
    if jax.process_index() != 0:
        return
    path = workdir / "config.json"
    draft = path.with_suffix(".tmp")
    try:
        draft.write_text(json.dumps(record, indent=2) + "\n")
        draft.replace(path)
    except OSError as error:
        raise InputError(f"cannot write into workdir {workdir}: {error}; repair it or choose another") from error


def _compare(workdir: Path, saved: Mapping[str, Any], record: Mapping[str, Any], *, allow_changes: bool) -> None:
    kept = {"config": {k: v for k, v in saved["config"].items() if k not in FREE_PARTS}, "data": saved["data"]}
    wanted = {"config": {k: v for k, v in record["config"].items() if k not in FREE_PARTS}, "data": record["data"]}
    before, now = dict(_flat(kept)), dict(_flat(wanted))
    changes = [
        f"{name}: {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name, "absent") != now.get(name, "absent")
    ]
    if changes and not allow_changes:
        raise InputError(
            f"{workdir} holds a run with another config, and continuing would change it ({'; '.join(changes)}); "
            f"use the saved config or another workdir, or continue anyway with --allow_changes"
        )
    for change in changes:
        say(f"continuing with a changed config: {change}")


def _flat(tree: Any, prefix: str = ""):
    """Nested dicts as ('config.net.width', 32), ..."""
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for key, value in tree.items():
        yield from _flat(value, f"{prefix}.{key}" if prefix else key)


def say(sentence: str) -> None:
    if jax.process_index() == 0:
        print(sentence, flush=True)

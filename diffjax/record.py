"""What identifies a run: its config, its data and the libraries, in workdir/config.json.

It is written before the first step, and compared whenever the run continues.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffjax.data import digest
from diffjax.errors import InputError
from diffjax.evaluation.passport import flat
from diffjax.experiment import FREE_PARTS, Experiment

LIBRARIES = "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"
SHOWN = 8  # examples that stand for the data


def describe(experiment: Experiment) -> dict[str, Any]:
    """What identifies a run, as JSON reads it back.  Of the data it reads a few examples."""
    source, seen = experiment.source, digest(experiment.source, SHOWN)
    described = {"size": source.size, "shape": source.shape, "classes": source.classes, "seen": seen}
    return json.loads(json.dumps({"config": experiment.config, "data": described, "versions": versions()}))


def versions() -> dict[str, str]:
    """Those of the libraries that numbers may depend on."""
    return {name: metadata.version(name) for name in LIBRARIES}


def identity(record: Mapping[str, Any], **which: Any) -> dict[str, Any]:
    """A run as numbers about it name it: a hash of what it learned from what, beside which of its parameters."""
    config = {name: value for name, value in record["config"].items() if name not in FREE_PARTS}
    told = json.dumps({"config": config, "data": record["data"]}, sort_keys=True)
    return {"run": hashlib.sha256(told.encode()).hexdigest()[:16], **which}


def meta_of(record: Mapping[str, Any], step: int) -> dict[str, Any]:
    """What a checkpoint is saved with beside its state: where the run stands, and a copy of what identifies it."""
    config = record["config"]
    position = {"step": step, "seed": config["seed"], "examples": step * config["batch_size"]}
    return {"step": step, "position": position, "mesh": config["mesh"], **record}


def read_record(workdir: Path) -> dict[str, Any] | None:
    """What identifies the run in a workdir, or None.  Raises InputError if its config.json is damaged."""
    path = workdir / "config.json"
    try:
        record = json.loads(path.read_text())
        return {key: dict(record[key]) for key in ("config", "data", "versions")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot use workdir {workdir}: its config.json cannot be read ({type(error).__name__}: {error}); "
            f"repair it, for the meta of every checkpoint holds a copy, or choose another workdir"
        ) from error


def record_of(workdir: str | Path) -> dict[str, Any]:
    """The same, where there must be a run.  Raises InputError if there is none."""
    record = read_record(Path(workdir))
    if record is None:
        raise InputError(
            f"{workdir} holds no run (there is no config.json in it); train one there or name another workdir"
        )
    return record


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


def agree(record: Mapping[str, Any]) -> None:
    """Raise InputError unless all processes of a run have this same record; all of them ask."""
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
    if others:
        raise InputError(
            f"processes {others} have another config, other data or other libraries than process 0; start the same "
            f"command on every host"
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
    def lasting(record):
        config = {name: value for name, value in record["config"].items() if name not in FREE_PARTS}
        return dict(flat({**record, "config": config}))

    before, now = lasting(saved), lasting(record)
    changes = [
        f"{name}: {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name, "absent") != now.get(name, "absent")
    ]
    if changes and not allow_changes:
        raise InputError(
            f"{workdir} holds a run of another config, data or libraries, and continuing would change it "
            f"({'; '.join(changes)}); use what it was begun with or another workdir, or continue anyway with "
            f"--allow_changes"
        )
    for change in changes:
        say(f"continuing with a change: {change}")


def say(sentence: str) -> None:
    if jax.process_index() == 0:
        print(sentence, flush=True)

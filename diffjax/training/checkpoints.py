"""Checkpoints that come back exactly as they were saved, or as an error, never as something in between.

Orbax writes the arrays (in the background, atomically by rename, under any sharding) but returns flipped bytes and
casts dtypes without a word.  So each checkpoint holds a record, `directory/step/meta/`, in the same atomic rename as
the arrays, `directory/step/<field>/`: its own SHA-256, the abstract tree, and a fingerprint per leaf taken on the
device, with which whatever is restored is compared.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding

from diffjax.errors import InputError

from . import contents
from .contents import State
from .faults import CheckpointError as CheckpointError
from .faults import CheckpointMismatch, blaming
from .fingerprints import fingerprint, named

ROOM = 2**18  # bytes that a checkpoint takes beside its arrays, at most
# Devices that hold the same array write a part of it each; parts below 1 MiB take longer to cut than to write.
_arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=2**20)
WHOLE = ocp.type_handlers.create_type_handler_registry((jax.Array, _arrays))  # which knows no keys


def _all_agree(good: bool) -> bool:
    # Processes that disagree on a step would restore different ones.  Also a barrier.
    return good if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(good)).all())


def open_checkpoints(
    directory: str | os.PathLike,
    *,
    keep_last: int = 2,
    keep_best: int = 1,
    read_only: bool = False,
    warn: Callable[[str], None] | None = None,
) -> "Checkpoints":
    """The checkpoints in `directory` (POSIX), for writing; `with` closes them, which waits for the last save.

    Opening removes what interrupted saves left behind, so only one run may have a directory open for writing: use
    `read_only` to sample or evaluate, also while that run goes on.  The newest `keep_last` and the `keep_best` steps
    of least metric are kept.  `warn` (default: stderr) gets a sentence for every step passed over as damaged.
    """
    if keep_last < 1 or keep_best < 0:
        raise InputError(f"got keep_last={keep_last}, keep_best={keep_best}; keep at least the last 1 and the best 0")
    directory = Path(directory).absolute()
    with blaming(None, directory):
        if not read_only:
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK):
                raise PermissionError("the directory is not writable")
            for stale in directory.glob("*.orbax-checkpoint-tmp*") if jax.process_index() == 0 else ():
                shutil.rmtree(stale)
            _all_agree(True)
        warn = warn or functools.partial(print, file=sys.stderr)
        store = Checkpoints(directory, keep_last, keep_best, read_only, warn)
        store.steps()
    return store


@dataclasses.dataclass
class Checkpoints:
    """See `open_checkpoints`.  In a run of several processes all of them make the same calls."""

    directory: Path
    keep_last: int
    keep_best: int
    read_only: bool
    warn: Callable[[str], None]
    _writing: tuple[int, ocp.AsyncCheckpointer] | None = None
    _damaged: set[int] = dataclasses.field(default_factory=set)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def save(self, step: int, state: State, *, meta: Mapping, metric: float | None = None, wait: bool = False) -> bool:
        """Write `state` and the JSON-able `meta` in the background; False if this very state is saved already.

        The arrays may be donated as soon as this returns.  Raises a CheckpointError if the previous save has failed
        (older steps are intact), or if `step` is not newer than all others.
        """
        self.wait()
        if self.read_only:
            raise CheckpointError(step, self.directory, "opened with read_only=True; open it for writing to save")
        step, leaves = int(step), {path: jnp.asarray(leaf) for path, leaf in named(contents.fields(state)).items()}
        record = {"meta": meta, "metric": None if metric is None else float(metric), "tree": contents.abstract(leaves)}
        try:
            record = json.loads(json.dumps(record | {"fingerprint": fingerprint(leaves)}))
        except TypeError as error:
            raise InputError(f"meta of step {step} must be JSON: {error}; use numbers, strings, lists, dicts") from None
        if not self._is_new(step, record):
            return False
        self._require_room(step, sum(leaf.nbytes for leaf in leaves.values()))
        args = {"meta": ocp.args.JsonSave(record | {"sha256": contents.digest(record)})}
        fields = contents.items(leaves, ocp.args.PyTreeSave)
        # Weights hardly compress (by 7 %), and trying takes a core for seconds that training wants.
        plain = functools.partial(ocp.PyTreeCheckpointHandler, use_compression=False)
        keyed = {p.split("/")[0] for p, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)}
        handlers: Any = {name: plain() if name in keyed else plain(type_handler_registry=WHOLE) for name in fields}
        handlers["meta"] = ocp.JsonCheckpointHandler()
        writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(**handlers))
        with blaming(step, self._path(step)):
            writer.save(self._path(step), args=ocp.args.Composite(**args, **fields))
        self._writing = step, writer  # one writer per save: after a failure its state would be undefined
        if wait:
            self.wait()
        return True

    def restore(self, target: State, step: int | None = None) -> tuple[State, dict] | None:
        """(state, meta) of `step`, or of the newest step that verifies; None if there is no checkpoint at all.

        `target` holds a ShapeDtypeStruct per leaf, whose sharding says where to put it (None: the first device; with
        several processes it must be given).  It may lack some fields, or have None for them: these are not read.
        """
        self.wait()
        steps, errors = self.steps(), []
        if step is not None and step not in steps:
            raise CheckpointError(step, self.directory, f"there is none; saved steps: {steps or 'none'}")
        for candidate in steps[::-1] if step is None else [int(step)]:
            found, error = None, CheckpointError(candidate, self._path(candidate), "another process cannot read it")
            try:
                found = self._load(target, candidate)
            except CheckpointMismatch:
                raise
            except CheckpointError as caught:
                error = caught
            if _all_agree(found is not None):
                for error in errors:
                    self.warn(f"passed over {error}; resuming from step {candidate} instead")
                self._damaged.update(error.step for error in errors)
                return found
            errors.append(error)
        if step is not None:
            raise errors[0]
        if errors:
            causes = "; ".join(f"step {error.step}: {error.cause}" for error in errors)
            raise CheckpointError(None, self.directory, f"none of {len(errors)} can be used: {causes}")
        return None

    def steps(self) -> list[int]:
        """The finished steps on disk, ascending."""
        with blaming(None, self.directory):
            if self.read_only and not self.directory.exists():
                return []
            return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit() and path.is_dir())

    def discard_after(self, step: int) -> None:
        """Remove the steps later than this one: those of a run that has gone back."""
        self.wait()
        with blaming(None, self.directory):
            for later in [n for n in self.steps() if n > step] if jax.process_index() == 0 else ():
                shutil.rmtree(self._path(later))
            _all_agree(True)

    def best(self) -> int | None:
        """The step of least metric, the later of equals; None if no step has one."""
        return next(iter(self._ranked()), None)

    def meta(self, step: int) -> dict:
        """What `save` was given as `meta`, as JSON returns it: lists for tuples, strings for keys."""
        return self._record(step)["meta"]

    def wait(self) -> None:
        """Return when nothing is being written; a CheckpointError if the last save has failed."""
        if self._writing is None:
            return
        (step, writer), self._writing = self._writing, None
        with blaming(step, self._path(step)), contextlib.closing(writer):
            writer.wait_until_finished()
        with blaming(None, self.directory):  # only now that a newer one is complete may an old one go
            steps = self.steps()
            kept = {*steps[-self.keep_last :], *self._ranked()[: self.keep_best]}
            for old in set(steps) - kept if jax.process_index() == 0 else ():
                shutil.rmtree(self._path(old))
            _all_agree(True)

    def reached_preemption(self, step: int) -> bool:
        """Whether the machine is to be taken away; every process asks at every step, with jax.distributed running."""
        try:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        except RuntimeError:  # nobody to ask
            return False

    def close(self) -> None:
        """The end of the last save; a CheckpointError if it has failed."""
        self.wait()

    def _require_room(self, step: int, size: int) -> None:
        """Before anything is written: what is begun on a full disk ends in a hundred errors, of as many threads."""
        with blaming(step, self._path(step)):
            free = shutil.disk_usage(self.directory).free
        if free < size + ROOM:
            raise CheckpointError(
                step,
                self._path(step),
                f"it takes {(size + ROOM) / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free; the steps before it are "
                f"intact: make room and run the same command again",
            )

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _record(self, step: int) -> dict:
        with blaming(step, self._path(step)):
            (self._path(step) / "_CHECKPOINT_METADATA").stat()  # Orbax's mark that the step is whole
            # The file itself, not through Orbax: a reader needs no threads and no barriers for it.
            record = json.loads((self._path(step) / "meta" / "metadata").read_text())
            if record["sha256"] != contents.digest(record):
                raise ValueError("the record in meta/metadata does not match its SHA-256")
            return record

    def _ranked(self) -> list[int]:
        """Steps with a finite metric, the least first."""
        ranked = []
        for step in self.steps():
            with contextlib.suppress(CheckpointError):
                metric = self._record(step)["metric"]
                if metric is not None and math.isfinite(metric):
                    ranked.append((metric, -step))
        return [-negative for _, negative in sorted(ranked)]

    def _load(self, target: State, step: int) -> tuple[State, dict]:
        fields, record = contents.fields(target), self._record(step)
        wanted = named(fields)
        stored = {path: leaf for path, leaf in record["tree"].items() if path.split("/")[0] in fields}
        if difference := contents.difference(contents.abstract(wanted), stored):
            cause = f"{difference}; restore it with the configuration it was saved with"
            raise CheckpointMismatch(step, self._path(step), cause)
        default = SingleDeviceSharding(jax.local_devices()[0])
        placed = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or default)
            for path, leaf in wanted.items()
        }
        args = contents.items(placed, ocp.args.StandardRestore)
        leaves = {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in wanted.items() if not leaf.size}
        with blaming(step, self._path(step)), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            restored = reader.restore(self._path(step), args=ocp.args.Composite(**args)) if args else {}
            for field in args:
                leaves |= restored[field]
            found = fingerprint(leaves)
        for path in wanted:
            if found[path] != record["fingerprint"][path]:
                raise CheckpointError(
                    step, self._path(step), f"'{path}' is not what was saved: its fingerprint differs"
                )
        tree = jax.tree.unflatten(jax.tree.structure(fields), [leaves[path] for path in wanted])
        return (target._replace(**tree) if hasattr(target, "_replace") else {**target, **tree}), record["meta"]

    def _is_new(self, step: int, record: dict) -> bool:
        """Whether `step` is to be written; what stands in its way is refused, or set aside if it is damaged."""
        if step in self.steps() and step not in self._damaged:
            try:
                if self._record(step)["fingerprint"] == record["fingerprint"]:
                    return False
            except CheckpointError:
                self._damaged.add(step)
        with blaming(None, self.directory):  # damaged steps count no more among those to keep
            for damaged in self._damaged.intersection(self.steps()) if jax.process_index() == 0 else ():
                aside = self.directory / f"{damaged}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                self._path(damaged).rename(aside)
            _all_agree(True)
        self._damaged.clear()
        newest = max(self.steps(), default=-1)
        if step <= newest:
            cause = f"step {newest} of another run is there already; use a new directory or remove the later steps"
            raise CheckpointError(step, self.directory, cause)
        return True

"""Checkpoints that are either exactly what was saved or an error, never something in between.

Orbax writes the arrays (asynchronously, atomically by rename, under any sharding) but returns flipped bytes and casts
dtypes without a word.  So every checkpoint carries a record: the abstract tree, and per leaf a fingerprint taken on
the device before writing.  The record is an item of the same atomic checkpoint and holds its own SHA-256; whatever is
restored is compared with it.  With w_i the words of a leaf, i their row-major index and m a bijection of 32-bit words,

    h_i = m(w_i ^ a i),   fingerprint = (sum_i h_i, sum_i m(h_i + b i))   mod 2^32,   a and b odd.

Both sums are bijective in each single w_i, so one changed word always shows, anything else but once in about 2^64;
integer sums commute, so the fingerprint is independent of sharding, devices and processes.
On disk (POSIX): `directory/step/<field>/` with leaves named `ema/down/0/kernel`, and `directory/step/meta/`.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, PyTree, Shaped, UInt32

from diffjax.errors import InputError

State = tuple | Mapping[str, PyTree]  # a NamedTuple or a dict, of pytrees of arrays


class CheckpointError(InputError):
    """A checkpoint could not be written, read or trusted; the sentence names step, path and cause."""

    def __init__(self, step: int | None, path: str | Path, cause: str):
        super().__init__(f"checkpoint{'s in' if step is None else f' at step {step} in'} {path}: {cause}")
        self.step, self.path, self.cause = step, str(path), cause


class CheckpointMismatch(CheckpointError):
    """The checkpoint is of another model than the target: older steps would not help, so there is no fallback."""


# --- fingerprints -----------------------------------------------------------------------------------------------------


def fingerprint(tree: PyTree[Shaped[Array, "..."]]) -> dict[str, str]:
    """16 hex digits for each leaf path of `tree`; PRNG keys, every dtype JAX stores and any sharding are welcome."""
    leaves = {path: jnp.asarray(leaf) for path, leaf in _named(tree).items()}
    sums = jax.device_get([_summed(_everywhere(leaf.sharding))(leaf) for leaf in leaves.values()])
    return {path: f"{int(first):08x}{int(second):08x}" for path, (first, second) in zip(leaves, sums, strict=True)}


@functools.cache
def _summed(out_sharding: NamedSharding | None) -> Callable[[Array], UInt32[Array, "2"]]:
    # Compiled per leaf shape, not per tree: params, EMA and moments share their programs.
    return jax.jit(_sums, out_shardings=out_sharding)


def _everywhere(sharding: jax.sharding.Sharding) -> NamedSharding | None:
    # Each process must be able to read the sums, wherever the leaf lives.
    return NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None


def _sums(leaf: Shaped[Array, "..."]) -> UInt32[Array, "2"]:
    words = _words(leaf)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):  # by axis, not on a flat view: a reshape would gather a sharded leaf
        stride = math.prod(words.shape[axis + 1 :]) % 2**32
        index += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride)
    first = _scrambled(words ^ index * np.uint32(0x9E3779B1))
    second = _scrambled(first + index * np.uint32(0x85EBCA77))
    return jnp.stack([jnp.sum(first, dtype=jnp.uint32), jnp.sum(second, dtype=jnp.uint32)])


def _words(leaf: Shaped[Array, "..."]) -> UInt32[Array, "..."]:
    """The bits of `leaf`, one word per element, two (a last axis) for elements of 64 bits or more."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == bool or (jnp.issubdtype(leaf.dtype, jnp.integer) and jnp.iinfo(leaf.dtype).bits < 8):
        leaf = leaf.astype(jnp.int8)  # these have no bytes of their own to look at
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)


def _scrambled(words: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finalizer of MurmurHash3: xor-shifts and odd multipliers, each of them a bijection."""
    words = (words ^ words >> 16) * np.uint32(0x85EBCA6B)
    words = (words ^ words >> 13) * np.uint32(0xC2B2AE35)
    return words ^ words >> 16


# --- names, records, causes -------------------------------------------------------------------------------------------


def _named(tree: PyTree) -> dict[str, Any]:
    """Leaves by path, in tree order; `ema/down/0/kernel` whether 0 is a list index, an int key or a tuple field."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    if len(leaves) != len(flat):
        raise InputError(
            "two leaves of a state have the same path; rename keys that contain '/' or differ only in type"
        )
    return leaves


def _fields(state: State) -> dict[str, PyTree]:
    """The top-level fields that are there, each of them one item of the checkpoint."""
    fields = state._asdict() if hasattr(state, "_asdict") else dict(state)
    for name in fields:
        if not str(name).isidentifier() or name == "meta":
            raise InputError(f"a state cannot have a field named '{name}'; use an identifier other than 'meta'")
    return {name: tree for name, tree in fields.items() if tree is not None}


def _items(leaves: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Leaves grouped by field; without the empty ones, which Orbax refuses and of which nothing is left to store."""
    items: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves.items():
        if leaf.size:
            items.setdefault(path.split("/")[0], {})[path] = leaf
    return items


def _abstract(leaves: Mapping[str, Any]) -> dict[str, str]:
    return {path: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for path, leaf in leaves.items()}


def _difference(wanted: Mapping[str, str], stored: Mapping[str, str]) -> str | None:
    """The first difference of two abstract trees in words, or None."""
    for path in [*wanted, *stored]:
        if path not in stored:
            return f"'{path}' ({wanted[path]}) is missing from it"
        if path not in wanted:
            return f"it has '{path}' ({stored[path]}), which the target lacks"
        if wanted[path] != stored[path]:
            return f"'{path}' is {stored[path]} in it and {wanted[path]} in the target"
    return None


def _digest(record: Mapping[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _score(metric: float | None) -> float:
    """For ranking: a metric that is absent, infinite or not a number comes last."""
    return metric if metric is not None and math.isfinite(metric) else math.inf


@contextlib.contextmanager
def _blaming(step: int | None, path: Path) -> Iterator[None]:
    """Turn whatever Orbax, TensorStore, JSON or the file system throws into a CheckpointError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # TensorStore raises bare Exceptions
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        raise CheckpointError(step, path, f"{type(error).__name__}: {line.strip()}"[:200]) from error


def _all_agree(good: bool) -> bool:
    # Processes that disagree on a step would restore different ones.
    return good if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(good)).all())


def _meet(where: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"diffjax_checkpoints_{where}")


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None and jax.process_count() == 1:
        sharding = SingleDeviceSharding(jax.local_devices()[0])
    elif sharding is None:
        sharding = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec())
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


class _Keep(NamedTuple):
    """Orbax preservation policy: the newest `last` steps and the `best` of those with a metric (lower is better)."""

    last: int
    best: int
    metric: Callable[[int], float]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = sorted(info.step for info in checkpoints)
        scored = sorted((self.metric(step), -step) for step in steps if self.metric(step) < math.inf)
        kept = {*steps[-self.last :], *(-negative for _, negative in scored[: self.best])}
        return [info.step in kept for info in checkpoints]


# --- the store --------------------------------------------------------------------------------------------------------


def open_checkpoints(
    directory: str | os.PathLike,
    *,
    keep_last: int = 2,
    keep_best: int = 1,
    read_only: bool = False,
    warn: Callable[[str], None] = functools.partial(print, file=sys.stderr),
) -> "Checkpoints":
    """The checkpoints in `directory`, for writing; `with` closes them, which waits for the last save.

    Opening removes what interrupted saves left behind, so only one run may have a directory open for writing: open it
    with `read_only` to sample or evaluate, also while that run goes on.  The newest `keep_last` >= 1 and the `keep_best`
    steps of least metric are kept.  `warn` gets one sentence for every checkpoint that is passed over as damaged.
    """
    if keep_last < 1 or keep_best < 0:
        raise InputError(f"got keep_last={keep_last}, keep_best={keep_best}; keep at least the last 1 and the best 0")
    store = Checkpoints(Path(directory).absolute(), keep_last, keep_best, read_only=read_only, warn=warn)
    with _blaming(None, store.directory):
        if not read_only:
            store.directory.mkdir(parents=True, exist_ok=True)
            if not os.access(store.directory, os.W_OK):
                raise PermissionError("the directory is not writable")
            for stale in store.directory.glob("*.orbax-checkpoint-tmp*") if jax.process_index() == 0 else ():
                shutil.rmtree(stale)
            _meet("swept")
        store.steps()
    return store


class Checkpoints:
    """See `open_checkpoints`.  In a run of several processes, all of them make the same calls."""

    def __init__(self, directory: Path, keep_last: int, keep_best: int, *, read_only: bool, warn: Callable):
        self.directory, self._read_only, self._warn = directory, read_only, warn
        self._policy = _Keep(keep_last, keep_best, self._metric)
        self._manager: ocp.CheckpointManager | None = None
        self._metrics: dict[int, float] = {}
        self._saving: int | None = None
        self._damaged: set[int] = set()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def save(self, step: int, state: State, *, meta: Mapping, metric: float | None = None, wait: bool = False) -> bool:
        """Write `state` and the JSON-able `meta` in the background; False if this very state is saved already.

        The arrays may be donated as soon as this returns.  Raises a CheckpointError if the previous save has failed
        (older checkpoints are intact), or if `step` is older than the newest or saved with other values.
        """
        self.wait()
        if self._read_only:
            raise CheckpointError(step, self.directory, "opened with read_only=True; open it for writing to save")
        step, leaves = int(step), {path: jnp.asarray(leaf) for path, leaf in _named(_fields(state)).items()}
        record = {"meta": meta, "metric": None if metric is None else float(metric), "tree": _abstract(leaves)}
        try:
            record = json.loads(json.dumps(record | {"fingerprint": fingerprint(leaves)}))
        except TypeError as error:
            raise InputError(
                f"meta of step {step} must be JSON: {error}; convert it to numbers, strings, lists"
            ) from None
        if not self._is_new(step, record):
            return False
        record["sha256"] = _digest(record)
        items = {field: ocp.args.StandardSave(item) for field, item in _items(leaves).items()}
        self._metrics[step] = _score(record["metric"])  # the retention policy asks before it is on disk
        self._saving = step
        with self._saving_fails():
            if not self._orbax().save(step, args=ocp.args.Composite(meta=ocp.args.JsonSave(record), **items)):
                raise RuntimeError("Orbax declined to save it")
        if wait:
            self.wait()
        return True

    def restore(self, target: State, step: int | None = None) -> tuple[State, dict] | None:
        """(state, meta) of `step`, or of the newest step that verifies; None if there is no checkpoint at all.

        `target` holds a ShapeDtypeStruct per leaf, whose sharding says where to put it (None: the first device, with
        several processes every device).  It may lack some fields, or have None for them: these are not read.
        """
        self.wait()
        steps, errors = self.steps()[::-1], []
        if step is not None and step not in steps:
            raise CheckpointError(step, self.directory, f"there is none; saved steps: {steps[::-1] or 'none'}")
        for candidate in steps if step is None else [int(step)]:
            try:
                state, meta = self._load(target, candidate)
                error = None
            except CheckpointMismatch:
                raise
            except CheckpointError as caught:
                error = caught
            if not _all_agree(error is None):
                error = error or CheckpointError(candidate, self._path(candidate), "another process cannot read it")
                if step is not None:
                    raise error
                errors.append(error)
                continue
            for rejected in errors:
                self._warn(f"passed over {rejected}; resuming from step {candidate} instead")
                self._damaged.add(rejected.step)
            return state, meta
        if errors:
            causes = "; ".join(f"step {error.step}: {error.cause}" for error in errors)
            raise CheckpointError(None, self.directory, f"none of {len(errors)} can be used: {causes}")
        return None

    def steps(self) -> list[int]:
        """The finished steps on disk, ascending."""
        with _blaming(None, self.directory):
            if self._read_only and not self.directory.exists():
                return []
            return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit() and path.is_dir())

    def best(self) -> int | None:
        """The step of least metric, the later of equals; None if no step has one."""
        score, negative = min(((self._metric(step), -step) for step in self.steps()), default=(math.inf, 0))
        return -negative if score < math.inf else None

    def meta(self, step: int) -> dict:
        """What `save` was given as `meta`, as JSON returns it (lists for tuples, strings for keys)."""
        return self._record(step)["meta"]

    def reached_preemption(self, step: int) -> bool:
        """Whether the scheduler has announced the end; ask at every step, with jax.distributed initialised."""
        return self._orbax().reached_preemption(step)

    def wait(self) -> None:
        """Return when nothing is being written; a CheckpointError if the last save has failed."""
        if self._saving is not None:
            with self._saving_fails():
                self._orbax().wait_until_finished()
            self._saving = None

    def close(self) -> None:
        """Wait, then end the threads of Orbax; the object can be used again afterwards."""
        try:
            self.wait()
        finally:
            manager, self._manager = self._manager, None
            if manager is not None:
                manager.close()

    def _orbax(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(preservation_policy=self._policy)
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        return self._manager

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _record(self, step: int) -> dict:
        with _blaming(step, self._path(step)):
            # The file itself, not through Orbax: no barriers, so it can be read while a save is under way.
            record = json.loads((self._path(step) / "meta" / "metadata").read_text())
            if record["sha256"] != _digest(record):
                raise ValueError("the record in meta/metadata does not match its SHA-256")
            return record

    def _metric(self, step: int) -> float:
        if step not in self._metrics:
            try:
                self._metrics[step] = _score(self._record(step)["metric"])
            except CheckpointError:
                return math.inf
        return self._metrics[step]

    def _load(self, target: State, step: int) -> tuple[State, dict]:
        fields, record = _fields(target), self._record(step)
        wanted = _named(fields)
        stored = {path: leaf for path, leaf in record["tree"].items() if path.split("/")[0] in fields}
        if difference := _difference(_abstract(wanted), stored):
            cause = f"{difference}; restore it with the configuration it was saved with"
            raise CheckpointMismatch(step, self._path(step), cause)
        items = _items({path: _placed(leaf) for path, leaf in wanted.items()})
        args = {field: ocp.args.StandardRestore(item) for field, item in items.items()}
        leaves = {path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in wanted.items() if not leaf.size}
        with _blaming(step, self._path(step)):
            restored = self._orbax().restore(step, args=ocp.args.Composite(**args)) if args else {}
            for field in items:
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
        if step in self.steps():
            try:
                if self._record(step)["fingerprint"] == record["fingerprint"]:
                    return False
            except CheckpointError:
                self._damaged.add(step)
        self._set_aside()
        newest = max(self.steps(), default=-1)
        if step <= newest:
            cause = f"step {newest} of another run is there already; use a new directory or remove the later steps"
            raise CheckpointError(step, self.directory, cause)
        return True

    def _set_aside(self) -> None:
        """Rename damaged steps, so that they are neither in the way of new ones nor counted among those to keep."""
        if not self._damaged:
            return
        with _blaming(None, self.directory):
            for step in self._damaged if jax.process_index() == 0 else ():
                aside = self.directory / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                self._path(step).rename(aside)
            _meet("set_aside")
            self._orbax().reload()
        self._damaged.clear()

    @contextlib.contextmanager
    def _saving_fails(self) -> Iterator[None]:
        """After a failed save start from what is on disk: the manager's own list of steps is wrong by then."""
        try:
            with _blaming(self._saving, self._path(self._saving)):
                yield
        except CheckpointError:
            self._metrics.pop(self._saving, None)
            self._saving, manager, self._manager = None, self._manager, None
            with contextlib.suppress(Exception):
                manager.close()
            raise

"""From a source to batches: order, share of this process, flips, value range, prefetching.

The batch of step k is a pure function of (seed, k).  Global position p = k * batch_size + i falls into epoch p // size,
and every epoch has a permutation of its own; so the data position of a run is its step, and a run resumes on any number
of processes.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from jaxtyping import Bool, Int

from diffjax.errors import InputError

from .source import Batch, Source

SKIPPED = 100  # examples in a row that may be unreadable
UNREADABLE = (OSError, ValueError, RuntimeError, EOFError)  # of whatever library reads; others are bugs


@lru_cache(maxsize=2)  # a batch may straddle two epochs; 8 bytes an example each
def _permutation(size: int, seed: int, epoch: int) -> Int[np.ndarray, "size"]:
    return np.random.default_rng([seed, epoch]).permutation(size)


def order(positions: Int[np.ndarray, "n"], size: int, seed: int) -> Int[np.ndarray, "n"]:
    """Global positions 0, 1, 2, ... over all epochs -> indices into `size` examples; an epoch visits each once."""
    epochs = positions // size
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _permutation(size, seed, int(epoch))[positions[here] % size]
    return indices


def coins(positions: Int[np.ndarray, "n"], seed: int) -> Bool[np.ndarray, "n"]:
    """A fair coin for every global position: (seed, position) mixed up, whichever process asks (Steele et al. 2014)."""
    z = positions.astype(np.uint64) + np.uint64(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z >> np.uint64(63)).astype(bool)


def scaled(x: np.ndarray, source: Source, value_range: tuple[float, float]) -> np.ndarray:
    """Stored values -> float32 in value_range; as they are if the source declares no range."""
    x = x.astype(np.float32)
    if source.low is None or source.high is None:
        return x
    low, high = value_range
    return np.float32(low) + (x - np.float32(source.low)) * np.float32((high - low) / (source.high - source.low))


def read(source: Source, indices: Int[np.ndarray, "n"], *, skip: bool = False) -> Batch:
    """These examples; with `skip` the next readable one in the place of each that is not, a line on stderr about it.

    Raises InputError, which names the example, for one that cannot be read, is of another shape or is not finite.
    """
    try:
        return _sound(source, source.read(indices))
    except UNREADABLE:  # which example was it?
        ones = [_one(source, int(index), skip=skip) for index in indices]
        return {name: np.concatenate([one[name] for one in ones]) for name in ones[0]}


def _one(source: Source, index: int, *, skip: bool) -> Batch:
    for i in (np.arange(min(source.size, SKIPPED)) + index) % source.size:
        try:
            return _sound(source, source.read(np.asarray([i])))
        except UNREADABLE as error:
            cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            if not skip:
                raise InputError(
                    f"example {i} of the data cannot be read: {cause}; mend it, or set data.skip=True to take the next "
                    f"one in its place"
                ) from error
            print(f"example {i} is passed over: {cause}", file=sys.stderr)
    raise InputError(f"none of the {SKIPPED} examples from number {index} on can be read; look at the data")


def _sound(source: Source, batch: Batch) -> Batch:
    x = batch["x"]
    if x.shape[1:] != source.shape:
        raise ValueError(f"it is of shape {x.shape[1:]} and not {source.shape}")
    if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
        raise ValueError("it holds values that are not finite")
    return batch


@dataclass(frozen=True)
class Batches:
    """step -> this process's rows of the batch: x float32 [b, *S], label int32 [b]; can be pickled."""

    source: Source
    batch_size: int  # of all processes together
    seed: int
    flip: bool = False
    skip: bool = False  # examples that cannot be read, instead of refusing them
    value_range: tuple[float, float] = (-1.0, 1.0)
    rows: np.ndarray | None = None  # those of this process, in the batch of all; None: all

    def __post_init__(self):
        if self.seed < 0:
            raise InputError(f"the seed must be at least 0; got {self.seed}")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1; got {self.batch_size}")
        if self.flip and len(self.source.shape) != 3:
            raise InputError(
                f"data.flip mirrors images (H, W, C); the data is of shape {self.source.shape}: set it to False"
            )

    def __call__(self, step: int) -> Batch:
        rows = np.arange(self.batch_size) if self.rows is None else self.rows
        positions = int(step) * self.batch_size + rows.astype(np.int64)
        batch = read(self.source, order(positions, self.source.size, self.seed), skip=self.skip)
        x = scaled(batch["x"], self.source, self.value_range)
        if self.flip:
            mirrored = coins(positions, self.seed)
            x[mirrored] = x[mirrored][:, :, ::-1]
        return batch | {"x": x}


def stream(batches: Batches, start: int, *, workers: int = 0, threads: int = 2, prefetch: int = 8) -> Iterator[Batch]:
    """The batches of steps start, start + 1, ... without end, the same whoever reads them.

    In-memory sources are read in place; others ahead of time by `threads`, or by as many `workers` processes.
    """
    if workers < 0 or threads < 1 or prefetch < 1:
        raise InputError(
            f"loader needs workers >= 0, threads >= 1, prefetch >= 1; got {workers}, {threads}, {prefetch}"
        )
    if batches.source.in_memory and not workers:
        return map(batches, count(start))
    return _ahead(batches, start, workers, threads, prefetch)


def _ahead(batches, start, workers, threads, prefetch):
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # grain's worker processes look at flags, which notebooks and tests never parse
        flags.FLAGS.mark_as_parsed()
    steps = grain.MapDataset.range(start, 2**62).map(batches)
    dataset = steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    if workers:
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
        )
    iterator = iter(dataset)
    try:
        while True:
            yield next(iterator)
    except Exception as error:
        if (cause := _cause(error)) is not None:
            raise cause from None
        if "exit code" in str(error):
            raise InputError(
                f"a process that reads data has died: {str(error).splitlines()[0]} Run the same command to continue at "
                f"the newest checkpoint; if it was killed for memory, lower loader.workers or loader.prefetch"
            ) from error
        raise
    finally:
        iterator.close()  # ends the threads and processes that read ahead


def _cause(error: BaseException | None) -> InputError | None:
    """The InputError that grain has wrapped, if there is one."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def heldout(source: Source, batch_size: int, *, value_range: tuple[float, float]) -> Iterator[Batch]:
    """A whole source in order, with mask float32 [b]: 1 for examples, 0 for what fills up the last batch."""
    for first in range(0, source.size, batch_size):
        positions = np.arange(first, first + batch_size)
        batch = read(source, np.minimum(positions, source.size - 1))
        mask = (positions < source.size).astype(np.float32)
        yield batch | {"x": scaled(batch["x"], source, value_range), "mask": mask}

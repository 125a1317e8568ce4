"""Batches as a pure function of the step.

Examples have global positions 0, 1, 2, ... over all epochs.  Epoch e = position // size has its own permutation, a function
of (seed, e) alone; step k is the positions [k B, (k + 1) B); process p of P reads the p-th of P equal parts of them.  So a
run resumes at any step with no state but the step, and the global batch does not depend on the number of processes, threads
or workers that read it.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from diffjax.data.source import Source
from diffjax.errors import InputError

Batch = dict[str, np.ndarray]
FLIPS = 2**64 - 1  # second half of the key that draws flips; permutations have the epoch there


@functools.lru_cache(maxsize=4)  # two epochs, where one ends, of a training and of another loader
def _permutation(size: int, seed: int, epoch: int) -> Int[np.ndarray, "size"]:
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    permutation = generator.permutation(size)
    permutation.flags.writeable = False
    return permutation


def order(size: int, seed: int, positions: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The indices of the examples at global positions: every epoch of `size` positions is a permutation of its own."""
    epochs, places = np.divmod(positions, size)
    indices = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _permutation(size, seed, int(epoch))[places[here]]
    return indices


def coins(seed: int, first: int, n: int) -> Bool[np.ndarray, "n"]:
    """A fair coin for each of the positions first .. first + n - 1: one block of four words of the generator each."""
    return np.random.Philox(key=[seed, FLIPS], counter=first).random_raw(4 * n)[::4] >> np.uint64(63) == 1


def rescale(x: Num[np.ndarray, "n *S"], source: Source, value_range: tuple[float, float]) -> Float[np.ndarray, "n *S"]:
    """Stored values as float32, the range of the source mapped linearly to `value_range`, end points exactly."""
    x = x.astype(np.float32)
    if source.low is None:
        return x
    low, high = value_range
    x -= np.float32(source.low)
    x /= np.float32(source.high - source.low)
    x *= np.float32(high - low)
    x += np.float32(low)
    return x


@dataclass(frozen=True)
class Batches:
    """step -> {"x": float32 [b, *S], "label": int32 [b] if there are classes}: this process's rows, b = B / processes.

    `flip` mirrors each image left to right with probability 1/2, a function of (seed, position) alone.

    Raises:
      InputError: for a batch size that is not a positive multiple of the processes, an empty source, a negative seed, an
        empty value range, or flips of what is not an image [H, W, C].
    """

    source: Source
    batch_size: int
    seed: int
    flip: bool = False
    value_range: tuple[float, float] = (-1.0, 1.0)
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self):
        _check(self.source, self.batch_size, self.value_range)
        if not 0 <= self.process_index < self.process_count:
            raise InputError(f"process {self.process_index} of {self.process_count} does not exist; count from 0")
        if self.batch_size % self.process_count:
            raise InputError(
                f"batch_size {self.batch_size} does not divide among {self.process_count} processes; make it a multiple"
            )
        if not 0 <= self.seed < 2**64:
            raise InputError(f"the seed is {self.seed}; set it from 0 to 2**64 - 1")
        if self.flip and len(self.source.shape) != 3:
            raise InputError(
                f"flip needs images [H, W, C], not examples of shape {self.source.shape}; set flip to False"
            )

    def __call__(self, step: int) -> Batch:
        rows = self.batch_size // self.process_count
        first = int(step) * self.batch_size + self.process_index * rows
        batch = self.source.read(order(self.source.size, self.seed, np.arange(first, first + rows)))
        x = rescale(batch["x"], self.source, self.value_range)
        if self.flip:
            mirrored = coins(self.seed, first, rows)
            x[mirrored] = x[mirrored, :, ::-1]
        return batch | {"x": x}


def stream(batches: Batches, start: int, *, workers: int = 0, threads: int = 2, prefetch: int = 8) -> Iterator[Batch]:
    """The batches of steps start, start + 1, ... without end, the same however they are read.

    A source on disk is read ahead, up to `prefetch` batches, by `threads` threads in each of `workers` processes (0: this
    process).  With workers, the script must guard its start by `if __name__ == "__main__"`, as for any process pool.

    Raises:
      InputError: for counts that make no sense; at the step that meets it, what `batches` raises.
    """
    if start < 0 or workers < 0 or threads < 1 or prefetch < 1:
        raise InputError(
            f"cannot stream from step {start} with {workers} workers, {threads} threads and {prefetch} batches ahead;"
            " set start and workers to 0 or more, threads and prefetch to 1 or more"
        )
    if batches.source.in_memory and workers == 0:
        return map(batches, _steps(start))
    return _read_ahead(batches, start, (workers, threads, prefetch))


def _steps(start: int) -> Iterator[int]:
    return iter(range(start, sys.maxsize))


def _read_ahead(batches: Callable[[int], Batch], start: int, counts: tuple[int, int, int]) -> Iterator[Batch]:
    import grain  # heavy
    from absl import flags

    workers, threads, prefetch = counts
    steps = grain.MapDataset.range(start, 2**40)
    reads = steps.map(functools.partial(_attempt, batches)).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    )
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads its flags when it starts workers, also in a notebook
        reads = reads.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    iterator = iter(reads)
    try:
        for batch in iterator:
            if "error" in batch:
                raise batch["error"]
            yield batch
    finally:
        iterator.close()


def _attempt(batches: Callable[[int], Batch], step: int) -> dict:
    """An error travels as a value, or a worker would turn its sentence into a traceback."""
    try:
        return batches(step)
    except InputError as error:
        return {"error": error}


def heldout(
    source: Source,
    batch_size: int,
    *,
    limit: int | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> Iterator[Batch]:
    """One pass in a fixed order, for evaluation: batches of equal size with "mask" float32 [batch_size] (0: padding).

    The last batch is filled up by repeating its examples.  `limit` takes that many examples, evenly spaced, because sources
    are often sorted by class.

    Raises:
      InputError: for a batch size or limit below 1, an empty source or an empty value range.
    """
    _check(source, batch_size, value_range)
    if limit is not None and limit < 1:
        raise InputError(f"the limit of held-out examples is {limit}; set it to 1 or more, or leave it out")
    n = source.size if limit is None else min(limit, source.size)
    indices = np.arange(n) * source.size // n
    chunks = (indices[first : first + batch_size] for first in range(0, n, batch_size))
    return (_padded(source, chunk, batch_size, value_range) for chunk in chunks)


def _padded(source: Source, chunk: Int[np.ndarray, "n"], batch_size: int, value_range: tuple[float, float]) -> Batch:
    batch = source.read(np.resize(chunk, batch_size))
    mask = (np.arange(batch_size) < len(chunk)).astype(np.float32)
    return batch | {"x": rescale(batch["x"], source, value_range), "mask": mask}


def _check(source: Source, batch_size: int, value_range: tuple[float, float]) -> None:
    if source.size < 1:
        raise InputError("the data set is empty; choose a split with at least one example")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; set it to 1 or more")
    if not value_range[0] < value_range[1]:
        raise InputError(f"value_range is {tuple(value_range)}; set its first number below its second")

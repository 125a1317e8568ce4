"""The batch of a step is a function of (seed, step): whoever reads it, from wherever, on however many processes."""

import multiprocessing
import pickle
import time
from itertools import islice

import numpy as np
import pytest

from diffjax.data import Batches, Source, digits, heldout, stream
from diffjax.data.loader import coins, order, scaled
from diffjax.data.source import from_arrays


def same(found, expected) -> bool:
    """The same arrays by name, dtype, shape and bytes."""
    return found.keys() == expected.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in ((found[k], expected[k]) for k in expected)
    )


def numbers(size: int) -> Source:
    """Example i is the number i."""
    return from_arrays(np.arange(size, dtype=np.float32)[:, None], None)


def visits(batches: Batches, steps: int) -> list[int]:
    return np.concatenate([batches(step)["x"][:, 0] for step in range(steps)]).astype(int).tolist()


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_an_epoch_visits_every_example_once(size):
    indices = order(np.arange(5 * size), size, 0).reshape(5, size)
    assert (np.sort(indices, axis=1) == np.arange(size)).all()


def test_order_differs_between_epochs_and_seeds():
    epochs = {tuple(row) for seed in range(3) for row in order(np.arange(4 * 50), 50, seed).reshape(4, 50)}
    assert len(epochs) == 12


def test_order_needs_nothing_but_the_positions():
    whole = order(np.arange(300), 37, 5)
    chosen = np.random.default_rng(0).permutation(300)
    assert (order(chosen, 37, 5) == whole[chosen]).all()
    assert order(np.array([10**15]), 37, 5) in range(37)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 25])
def test_batches_run_through_epochs_without_a_gap(batch_size):
    epochs = np.reshape(visits(Batches(numbers(10), batch_size, 0), 10), (batch_size, 10))
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_the_batch(source, count):
    facts = dict(batch_size=8, seed=3, flip=len(source.shape) == 3)
    whole = Batches(source, **facts)
    parts = [Batches(source, **facts, rows=np.arange(8)[i * 8 // count : (i + 1) * 8 // count]) for i in range(count)]
    for step in (0, 5, 1000):
        shares = [part(step) for part in parts]
        assert all(len(share["x"]) == 8 // count for share in shares)
        assert same({k: np.concatenate([share[k] for share in shares]) for k in shares[0]}, whole(step))


def test_batches_depend_on_step_and_seed(source):
    shown = [Batches(source, 4, seed)(step)["x"].tobytes() for seed in (0, 1) for step in (0, 1, 2)]
    assert len(set(shown)) == 6


def test_a_stream_can_start_anywhere(source):
    batches = Batches(source, 3, 0)
    late, early = islice(stream(batches, 4), 3), islice(stream(batches, 0), 4, 7)
    for step, found, expected in zip((4, 5, 6), late, early, strict=True):
        assert same(found, expected) and same(found, batches(step))


def test_threads_read_what_one_reader_reads(source):
    batches = Batches(source, 5, 1, flip=len(source.shape) == 3)
    threaded = pickle.loads(pickle.dumps(batches))
    object.__setattr__(threaded, "source", source._replace(in_memory=False))
    for step, batch in enumerate(islice(stream(threaded, 2, threads=3, prefetch=2), 12), start=2):
        assert same(batch, batches(step))


@pytest.mark.parametrize("row", ["digits", "tfds"])
def test_a_worker_process_reads_what_one_reader_reads(make, row):
    batches = Batches(make(row), 4, 1, flip=True)
    ahead = stream(batches, 3, workers=1, prefetch=2)
    for step in range(3, 6):
        assert same(next(ahead), batches(step))
    ahead.close()
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children(), "a closed stream leaves no worker behind"


def test_flips_mirror_the_width_of_half_of_the_images():
    plain, flipped = (Batches(digits("train"), 500, 0, flip=flip)(2)["x"] for flip in (False, True))
    mirrored = (flipped == plain[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((flipped == plain).all(axis=(1, 2, 3)) | mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6
    assert (
        Batches(digits("train"), 500, 0, flip=True)(2)["label"] == Batches(digits("train"), 500, 0)(2)["label"]
    ).all()


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_coins_are_fair_and_forget(seed):
    heads = coins(np.arange(100_000), seed).astype(float)
    assert abs(heads.mean() - 0.5) < 0.01
    for lag in (1, 2, 64, 1497):
        assert abs(np.mean((heads[:-lag] - 0.5) * (heads[lag:] - 0.5))) < 0.003
    assert 0.4 < np.mean(heads == coins(np.arange(100_000), seed + 1)) < 0.6


@pytest.mark.parametrize("stored", [(0.0, 255.0), (0.0, 16.0), (-3.0, 7.0), (0.0, 65535.0)])
@pytest.mark.parametrize("wanted", [(-1.0, 1.0), (0.0, 1.0), (-0.5, 2.0)])
def test_values_fill_the_range_evenly(stored, wanted):
    source = numbers(2)._replace(low=stored[0], high=stored[1])
    x = scaled(np.linspace(*stored, 5), source, wanted)
    assert x.dtype == np.float32 and (x[0], x[-1]) == wanted
    np.testing.assert_allclose(x, np.linspace(*wanted, 5), atol=1e-6)


def test_values_without_a_range_stay(source):
    batch = Batches(source, 4, 0, value_range=(3.0, 5.0))(0)["x"]
    assert batch.dtype == np.float32
    raw = source.read(order(np.arange(4), source.size, 0))["x"]
    if source.low is None:
        assert (batch == raw).all()
    else:
        assert 3 <= batch.min() and batch.max() <= 5 and np.corrcoef(batch.ravel(), raw.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_heldout_shows_every_example_once(source, batch_size):
    source = source._replace(size=min(source.size, 25))
    whole = source.read(np.arange(source.size))
    batches = list(heldout(source, batch_size, value_range=(-1.0, 1.0)))
    assert len(batches) == -(-source.size // batch_size) and {len(b["x"]) for b in batches} == {batch_size}
    mask = np.concatenate([b["mask"] for b in batches])
    assert mask.dtype == np.float32 and mask.sum() == source.size and set(mask) <= {0.0, 1.0}
    shown = {k: np.concatenate([b[k] for b in batches])[mask == 1] for k in whole}
    assert same(shown, whole | {"x": scaled(whole["x"], source, (-1.0, 1.0))})

"""A trained model: load it from its run, sample from it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from tqdm import tqdm

from diffjax import training
from diffjax.averages import rebuild
from diffjax.data import Source, absent
from diffjax.diffusion.grids import pad
from diffjax.diffusion.sampling import row_keys
from diffjax.errors import InputError
from diffjax.evaluation import write
from diffjax.experiment import Experiment, build
from diffjax.record import record_of
from diffjax.sampler import sampler, settled

LONGEST = 1000  # steps of a grid that runs in the one program of its solver
AT_ONCE = 2  # batches that a CPU draws at a time: most of what a small network does keeps one core busy


class Model(NamedTuple):
    """What a run has learned: pure functions, and the parameters to call them with."""

    experiment: Experiment
    params: Any
    step: int
    sample: Callable  # (key, n, *, labels, guidance, ...): see `make_sample`
    stream: Callable  # the same in batches, as they are made


def load(workdir: str | Path, *, raw: bool = False, step: int | None = None, ema: float | None = None) -> Model:
    """The model of a run, with its averaged parameters, or with `raw` the optimizer's own.

    They are those of the newest good step, or of `step`; with `ema` an average of that relative standard deviation,
    rebuilt from the run's snapshots (averages.py).  Raises InputError if there are none.
    """
    record = record_of(workdir)
    described = {key: record["data"][key] for key in ("size", "classes")}
    source = Source(absent, shape=tuple(record["data"]["shape"]), **described)
    return restored(build(record["config"], source=source), workdir, raw=raw, step=step, ema=ema)


def restored(
    experiment: Experiment, workdir: str | Path, *, raw: bool = False, step: int | None = None, ema: float | None = None
) -> Model:
    """The model of an experiment, with parameters that a run of it has saved: see `load`."""
    workdir = Path(workdir)
    if ema is not None:
        if raw:
            raise InputError("raw parameters are no average; leave out --raw or --ema")
        ((params, _),), last = rebuild(experiment, workdir, [ema], step=step)
        return model_of(experiment, params, last)
    field, everywhere = "params" if raw else "ema", training.replicated(training.make_mesh())
    shapes = jax.eval_shape(experiment.net.init, jax.random.key(0))
    shapes = shapes if raw else jax.eval_shape(experiment.average.init, shapes)
    target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), shapes)
    with training.open_checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore({field: target}, step=step)
    if restored is None:
        raise InputError(f"{workdir} has no checkpoint yet; train there until the first one is saved")
    state, meta = restored
    params = state["params"] if raw else state["ema"][0]
    return model_of(experiment, params, meta["step"])


def model_of(experiment: Experiment, params: Any, step: int) -> Model:
    """A model with these parameters, which are those after `step`."""
    stream = make_stream(experiment)
    return Model(experiment, params, step, partial(whole(stream), params), partial(stream, params))


def make_sample(experiment: Experiment) -> Callable:
    """(params, key, n, *, ...) -> float32 [n, *S] in the data range, on the host: `make_stream` in one piece."""
    return whole(make_stream(experiment))


def whole(stream: Callable) -> Callable:
    """The pieces of a stream as one array."""
    return lambda *args, **options: np.concatenate(list(stream(*args, **options)))


def make_stream(experiment: Experiment) -> Callable:
    """(params, key, n, *, ...) -> an iterator of float32 [b, *S] in the data range, on the host, n rows in all.

    Labels cycle over the n samples; guidance is a number, or None for none; `chosen` are solver, steps, grid, start,
    times and what the solver takes (sampler.settled).  Sample i is a function of (params, key, i): it depends neither
    on n, nor on `batch`, nor on the devices.  Compiled once for each solver and batch size: new params, keys, labels,
    guidance, grids of up to LONGEST steps, eta and churn run the same program.
    """
    mesh = training.make_mesh()
    workers = AT_ONCE if mesh.size == 1 and jax.default_backend() == "cpu" else 1
    rows, same = training.batch_sharding(mesh), training.replicated(mesh)

    @cache
    def compiled(spec: tuple, guided: bool) -> Callable:
        run = sampler(experiment, dict(spec), guided=guided)
        return jax.jit(run, in_shardings=(None, rows, same, rows, same, same), out_shardings=rows)

    @partial(jax.jit, static_argnums=1, out_shardings=rows)
    def keys(key, size, first):  # compiled, for in a run of several processes no process holds all rows
        return row_keys(key, size, first=first)

    def stream(
        params: Any, key: PRNGKeyArray, n: int, *, labels: Sequence[int] | None = None, guidance: float | None = None,
        batch: int = 500, **chosen: Any,
    ) -> Iterator[Float[np.ndarray, "b *S"]]:  # fmt: skip
        if n < 1 or batch < 1:
            raise InputError(f"the number of samples and the batch must be at least 1; got {n} and {batch}")
        if guidance is not None:
            require_guidance(experiment)
        label = cycled(labels, n, experiment.source.classes, guidance=guidance)
        spec, turned, ts = settled(experiment, **chosen)
        run = compiled(tuple(sorted(spec.items())), guidance is not None)
        scale = jnp.float32(1.0 if guidance is None else guidance)
        size = min(batch, n) + -min(batch, n) % mesh.size  # every device gets as many rows
        times = pad(ts, max(len(ts), LONGEST + 1))

        def inputs(first: int) -> tuple:
            some = {} if label is None else {"label": np.resize(label[first : first + size], size)}
            return params, keys(key, size, first), times, training.spread(some, rows).get("label"), scale, turned

        starts = range(0, n, size)
        coming = ((first, *inputs(first)) for first in starts)
        head = next(coming)
        program = run.lower(*head[1:]).compile()  # here, for contexts such as enable_x64 are those of one thread

        def piece(first: int, *given: Any) -> np.ndarray:
            return training.to_host(program(*given))[: n - first]

        drawn = side_by_side(piece, chain([head], coming), workers=workers)
        return iter(tqdm(drawn, total=len(starts), unit="batch", disable=n <= size))

    return stream


def side_by_side(function: Callable, items: Iterable[tuple], *, workers: int) -> Iterator:
    """starmap(function, items), so many at a time, each in a thread of its own."""
    with ThreadPoolExecutor(workers) as pool:
        begun = deque()
        for item in items:
            begun.append(pool.submit(function, *item))
            if len(begun) == workers:
                yield begun.popleft().result()
        yield from (one.result() for one in begun)


def require_guidance(experiment: Experiment) -> None:
    """Raise InputError unless the model has learned what it would draw without a condition."""
    if not (experiment.source.classes and experiment.config["label_dropout"] > 0):
        raise InputError("guidance needs a model trained with labels and label_dropout > 0; sample without guidance")


def cycled(
    labels: Sequence[int] | None, n: int, classes: int, *, guidance: float | None = None
) -> np.ndarray | None:  # fmt: skip
    """n labels, the null class where none are asked for, or None where the model has no classes.

    Raises InputError for labels that are none, and for a guidance that is not finite or has nothing to guide towards.
    """
    if guidance is not None and not np.isfinite(guidance):
        raise InputError(f"guidance must be a finite number; got {guidance}; 1 changes nothing, 2 is strong")
    if guidance is not None and labels is None:
        raise InputError(f"guidance needs labels to guide towards; give labels in 0..{classes - 1}")
    if labels is None:
        return np.full(n, classes, np.int32) if classes else None
    if not classes:
        raise InputError("labels were given to a model that was trained without; sample without labels")
    given = np.atleast_1d(np.asarray(labels))
    if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= classes:
        raise InputError(f"labels must be whole numbers in 0..{classes - 1}; got {given.tolist()}")
    return np.resize(given.astype(np.int32), n)


def sample_to_folder(
    workdir: str | Path, out: str | Path, *, num: int, labels: Sequence[int] | None, seed: int, step: int | None,
    raw: bool, singles: bool, ema: float | None = None, **chosen: Any,
) -> Path:  # fmt: skip
    """Sample from the run in `workdir`, write into `out` (see evaluation/samples.py), return the path of the picture.

    `chosen` are the keywords of `make_sample`; those that are None keep their defaults.  The settings written beside
    the samples name everything that decides them.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed must lie in [0, {2**32 - 1}]; got {seed}")
    model = load(workdir, raw=raw, step=step, ema=ema)
    chosen = {key: value for key, value in chosen.items() if value is not None}
    x = model.sample(jax.random.key(seed), num, labels=labels, **chosen)
    config = model.experiment.config
    steps = {"steps": len(chosen["times"]) - 1} if "times" in chosen else {}
    used = {key: config["sampler"][key] for key in ("solver", "steps")} | steps | chosen
    settings = {
        "workdir": str(workdir),
        "step": model.step,
        "raw": raw,
        "ema": ema,
        "seed": seed,
        "num": num,
        "labels": labels,
    } | used
    used_labels = None if labels is None else np.resize(np.asarray(labels, np.int32), num)
    value_range = tuple(config["data"]["range"])
    try:
        return write(Path(out), x, labels=used_labels, value_range=value_range, settings=settings, singles=singles)
    except OSError as error:
        raise InputError(f"cannot write samples into {out}: {error}; name another folder with --out") from error

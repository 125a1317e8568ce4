"""From a config to functions: the only file that reads a config.

A config is literals; each part names a row of a table and its keywords, dict(name="cosine") or
dict(name="unet", width=64).  `pick` turns a part into the thing it names, `build` a whole config into an Experiment.
Nothing below this file has seen a config, and whatever is wrong with one is said here, in a sentence, before anything
compiles.
"""

import inspect
import runpy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from diffjax.data import DATASETS, Batches, Source
from diffjax.diffusion import parameterizations, schedules
from diffjax.diffusion.denoiser import denoiser
from diffjax.diffusion.gaussian import PROCESSES
from diffjax.diffusion.losses import levels, loss_at
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.times import TIMES
from diffjax.diffusion.types import Net, Process, Schedule, fold
from diffjax.diffusion.weights import WEIGHTS
from diffjax.errors import InputError, unknown
from diffjax.nets import NETS, SPLITS, functional
from diffjax.training.ema import AVERAGES, Average
from diffjax.training.loop import Rhythm
from diffjax.training.optimizers import DECAYS, OPTIMIZERS, clipped, warmed
from diffjax.training.sharding import Overrides

# The parts of a config.  The free ones may change between a run and its continuation: what is learned is the same.
PARTS = (
    "seed", "steps", "batch_size", "data", "schedule", "parameterization", "weight", "times", "process", "net",
    "label_dropout", "optimizer", "ema",
)  # fmt: skip
FREE_PARTS = ("steps_per_call", "every", "keep", "loader", "mesh", "memory", "watch", "sampler")
NUMBERS = {"seed": int, "steps": int, "batch_size": int, "label_dropout": float, "steps_per_call": int}
LATER = {"steps_per_call": 1}  # parts that runs of earlier versions do not have
OPTIONS = {
    "every": dict.fromkeys(Rhythm._fields, int),
    "keep": {"last": int, "best": int},
    "loader": {"workers": int, "threads": int, "prefetch": int},
    "mesh": {"fsdp": int, "tensor": int},
    "memory": {"accumulate": int, "remat": str, "offload": bool},
    "watch": {"spike": float},
    "sampler": {"solver": str, "steps": int, "num": int},
}
# Beside the options of the data set and of the optimizer themselves:
DATA_OPTIONS = {"split": str, "heldout": str, "flip": bool, "skip": bool, "range": tuple}
RATE_OPTIONS = {"learning_rate": float, "warmup": int, "decay": object, "clip": float}

ANSWERS = {"learned_variance": 2}  # of a network, for each number of the data, if not one


class Experiment(NamedTuple):
    """A config as functions and numbers."""

    config: dict[str, Any]
    source: Source
    heldout: Source | None
    process: Process
    fixed: Process  # the same, of a variance that is not learned
    net: Net
    denoise: Callable  # (params, xt, t, cond, *, key=None) -> x0_hat
    draw: Callable  # (key, batch) -> rows: the batch, its times and its keys
    loss: Callable  # (params, rows) -> [B]
    optimizer: optax.GradientTransformation
    rate: optax.Schedule  # the optimizer's learning rate
    average: Average
    splits: Overrides  # of the net, over the mesh's `tensor`
    rhythm: Rhythm


def require_heldout(experiment: Experiment) -> Source:
    """The held-out data of an experiment.  Raises InputError if there are none."""
    if experiment.heldout is None:
        raise InputError("the run has no held-out data; set data.heldout in its config and train again")
    return experiment.heldout


def read_config(path: str | Path) -> dict[str, Any]:
    """What get_config of a Python file says.  Raises InputError if there is no such file or function."""
    try:
        found = runpy.run_path(str(path))
        if "get_config" not in found:
            raise ImportError("it has no function get_config")
        return found["get_config"]().to_dict()
    except (OSError, ImportError, AttributeError, SyntaxError) as error:
        raise InputError(f"cannot load the config {path}: {error}; name a file as configs/digits.py is") from None


def pick(table: Mapping[str, Callable], kind: str, spec: Mapping[str, Any], /, *args: Any, **bound: Any) -> Any:
    """Call the row of `table` that spec["name"] names with spec's other entries as keywords, beside `args` and `bound`.

    Raises InputError for an unknown name or keyword (with the nearest spelling), a value of the wrong type, and for
    whatever the row itself refuses.
    """
    if "name" not in spec:
        raise InputError(f"the config's {kind} has no name; choose one of: {', '.join(sorted(table))}")
    name, options = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    if not isinstance(name, str) or name not in table:
        raise unknown(kind, name, table)
    parameters = inspect.signature(table[name]).parameters
    known = [key for key in list(parameters)[len(args) :] if key not in bound]
    for key, value in options.items():
        if key not in known:
            raise unknown(f"option of {kind} '{name}'", key, known)
        options[key] = _typed(f"{kind}.{key}", value, parameters[key].annotation)
    try:
        return table[name](*args, **options, **bound)
    except InputError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:
        raise InputError(f"{kind} '{name}': {error}") from error


def build(config: Mapping[str, Any], *, source: Source | None = None) -> Experiment:
    """Everything that a config names, checked against each other.  Raises InputError.

    A given `source` takes the place of the config's data, which is then not looked for.
    """
    config = _checked(config)
    source, heldout = (source, None) if source else _sources(config["data"])
    schedule = _schedule(config["schedule"])
    parameterization = pick(PARAMETERIZATIONS, "parameterization", config["parameterization"])
    try:
        parameterizations.check(parameterization, schedule)
    except ValueError as error:
        names = config["parameterization"]["name"], config["schedule"]["name"]
        raise InputError("parameterization '{}' with schedule '{}': {}".format(*names, error)) from None
    facts = schedule, parameterization, pick(WEIGHTS, "weight", config["weight"])
    process = pick(PROCESSES, "process", config["process"], *facts)
    pick(SOLVERS, "solver", {"name": config["sampler"]["solver"]}, process)  # now, not when the first preview is due
    net = _net(config["net"], source, remat=config["memory"]["remat"])
    outputs, wanted = config["net"].get("outputs", 1), ANSWERS.get(config["process"]["name"], 1)
    if outputs != wanted:
        raise InputError(
            f"process '{config['process']['name']}' needs net.outputs={wanted}, so many answers for each number of the "
            f"data; got {outputs}; one is of process 'gaussian', two are of 'learned_variance'"
        )
    denoise = denoiser(process, net.apply)
    times = pick(TIMES, "times", config["times"], schedule)
    optimizer, rate = _optimizer(config["optimizer"], config["steps"])
    return Experiment(
        config=config,
        source=source,
        heldout=heldout,
        process=process,
        fixed=pick(PROCESSES, "process", {"name": "gaussian"}, *facts),
        net=net,
        denoise=denoise,
        draw=lambda key, batch: batch | dict(zip(("t", "key"), levels(key, times, len(batch["x"])), strict=True)),
        loss=_loss(denoise, process, null=source.classes, dropout=config["label_dropout"]),
        optimizer=optimizer,
        rate=rate,
        average=pick(AVERAGES, "ema", config["ema"]),
        splits=SPLITS.get(config["net"]["name"], ()),
        rhythm=Rhythm(**config["every"]),
    )


def _sources(data: Mapping[str, Any]) -> tuple[Source, Source | None]:
    """The training data and what is held out of it, if anything."""
    spec = {key: value for key, value in data.items() if key not in DATA_OPTIONS}
    source = pick(DATASETS, "data", spec, data["split"])
    return source, pick(DATASETS, "data", spec, data["heldout"]) if data["heldout"] else None


def batches(experiment: Experiment, *, rows: np.ndarray | None = None) -> Batches:
    """The training batches as a function of the step; of one process that holds these rows of them."""
    config = experiment.config
    return Batches(
        experiment.source, config["batch_size"], config["seed"], flip=config["data"]["flip"],
        skip=config["data"]["skip"], value_range=tuple(config["data"]["range"]), rows=rows,
    )  # fmt: skip


def _loss(denoise, process, *, null: int, dropout: float) -> Callable:
    def loss(params, rows):
        label_keys, noise_keys, net_keys = (fold(rows["key"], i) for i in range(3))
        labels = rows.get("label")
        if labels is not None and dropout:
            labels = jnp.where(jax.vmap(lambda key: jax.random.bernoulli(key, dropout))(label_keys), null, labels)

        def rule(xt, t, cond):
            return denoise(params, xt, t, cond, key=net_keys)

        return loss_at(noise_keys, rule, process, t=rows["t"], x0=rows["x"], cond=labels)

    return loss


def _schedule(spec) -> Schedule:
    """A schedule that is one: finite, from data to noise, with falling log-SNR."""
    schedule = pick(SCHEDULES, "schedule", spec)
    try:
        schedules.check(schedule)
    except (ValueError, ArithmeticError) as error:
        raise InputError(f"schedule '{spec['name']}' with these options: {error}") from error
    return schedule


def _net(spec, source: Source, *, remat: str) -> Net:
    plain = [name for name, row in NETS.items() if "remat" not in inspect.signature(row).parameters]
    if remat != "none" and spec.get("name") in plain:
        raise InputError(f"net '{spec['name']}' has no blocks to compute again; set memory.remat to 'none'")
    bound = {} if remat == "none" else {"remat": remat}
    try:
        return functional(lambda rngs: pick(NETS, "net", spec, source.shape, source.classes, rngs=rngs, **bound))
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"net '{spec['name']}': {error}") from error


def _optimizer(spec, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    if "learning_rate" not in spec:
        raise InputError("the config's optimizer has no learning_rate; set optimizer.learning_rate, for example 1e-3")
    given = {key: _typed(f"optimizer.{key}", spec[key], wanted) for key, wanted in RATE_OPTIONS.items() if key in spec}
    peak, warmup, decay, clip = (({"warmup": 0, "decay": "constant", "clip": 0.0} | given)[k] for k in RATE_OPTIONS)
    if min(peak, warmup, clip) < 0:
        raise InputError(
            f"optimizer's learning_rate, warmup and clip must be at least 0; got {peak}, {warmup} and {clip}"
        )
    decay = decay if isinstance(decay, Mapping) else {"name": decay}
    rate = warmed(peak, warmup=warmup, decay=pick(DECAYS, "optimizer.decay", decay, steps))
    rest = {key: value for key, value in spec.items() if key not in RATE_OPTIONS}
    return clipped(pick(OPTIMIZERS, "optimizer", rest, rate), norm=clip), rate


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A plain copy with every part there and no other, each of its type, and the numbers in range."""
    plain: dict[str, Any] = LATER | dict(config)
    _require_keys(plain, PARTS + FREE_PARTS, name="config")
    for part, value in plain.items():
        if part in NUMBERS:
            plain[part] = _typed(part, value, NUMBERS[part])
        elif not isinstance(value, Mapping):
            raise InputError(f"the config's {part} must be a dict of options, as in configs/digits.py; got {value!r}")
        else:
            options = OPTIONS.get(part, DATA_OPTIONS if part == "data" else {})
            _require_keys(value, options, name=part, others=part not in OPTIONS)
            plain[part] = {key: _typed(f"{part}.{key}", v, options.get(key)) for key, v in value.items()}
    _require_ranges(plain)
    return plain


def _require_keys(given: Mapping[str, Any], known: Iterable[str], *, name: str, others: bool = False) -> None:
    for key in given:
        if key not in known and not others:
            raise unknown("config entry" if name == "config" else f"option of {name}", key, known)
    for key in known:
        if key not in given:
            whose = "config" if name == "config" else f"config's {name}"
            raise InputError(f"the {whose} has no '{key}'; add it as in configs/digits.py")


def _require_ranges(config: Mapping[str, Any]) -> None:
    counts = {key: (config[key], 1) for key in ("steps", "batch_size", "steps_per_call")}
    counts["memory.accumulate"] = config["memory"]["accumulate"], 1
    counts |= {f"sampler.{key}": (config["sampler"][key], 1) for key in ("steps", "num")}
    counts |= {f"every.{key}": (value, 0) for key, value in config["every"].items()}
    for name, (value, least) in counts.items():
        if value < least:
            raise InputError(f"{name} must be a whole number of at least {least}; got {value}")
    for name, low, high in (("label_dropout", 0, 1), ("seed", 0, 2**32 - 1)):
        if not low <= config[name] <= high:
            raise InputError(f"{name} must lie in [{low}, {high}]; got {config[name]}")
    calls, soonest = config["steps_per_call"], min(filter(None, [config["steps"], *config["every"].values()]))
    if calls > soonest:
        raise InputError(
            f"steps_per_call={calls} would never be reached, for something is due every {soonest} steps: a call ends "
            f"there; lower it, or raise what is due more often in every"
        )
    snapshot, spike = config["every"]["snapshot"], config["watch"]["spike"]
    if snapshot and config["ema"].get("name") != "power":
        raise InputError(f"every.snapshot={snapshot} needs power averages; set ema to name='power'")
    if spike and spike <= 1:
        raise InputError(f"watch.spike must be 0, or more than 1 times the usual loss; got {spike}")
    ends = config["data"]["range"]
    if len(ends) != 2 or not all(isinstance(end, int | float) for end in ends) or not ends[0] < ends[1]:
        raise InputError(f"data.range must rise, as (-1, 1) does; got {ends}")


def _typed(name: str, value: Any, wanted: Any) -> Any:
    """A value of the annotated type, whole numbers passing for floats; others of a plain type are refused."""
    wanted = float if wanted is ArrayLike else wanted
    accepted = {int: (int,), float: (int, float), str: (str,), bool: (bool,), tuple: (tuple, list)}.get(wanted)
    if accepted and (not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool)):
        raise InputError(f"{name} must be of type {wanted.__name__}; got {value!r}")
    return float(value) if wanted is float else value

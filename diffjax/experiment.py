"""From a config to functions: the only file that reads a config.

A config is literals; each part names a row of a table and its keywords, dict(name="cosine") or
dict(name="unet", width=64).  `pick` turns a part into the thing it names, `build` a whole config into an Experiment.
Nothing below this file has seen a config, and whatever is wrong with one is said here, in a sentence, before anything
compiles.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffjax.data import DATASETS, Batches, Source
from diffjax.diffusion.denoiser import denoiser
from diffjax.diffusion.gaussian import PROCESSES
from diffjax.diffusion.guidance import classifier_free
from diffjax.diffusion.losses import diffusion_loss
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.sampling import generate
from diffjax.diffusion.schedules import SCHEDULES, ends_in_pure_noise
from diffjax.diffusion.solvers import DETERMINISTIC, SOLVERS
from diffjax.diffusion.times import TIMES
from diffjax.diffusion.types import Net, Process
from diffjax.diffusion.weights import WEIGHTS
from diffjax.errors import InputError, unknown
from diffjax.nets import NETS, functional
from diffjax.training.loop import Rhythm
from diffjax.training.optimizers import DECAYS, OPTIMIZERS, clipped, warmed

# The parts of a config.  The free ones may change between a run and its continuation: what is learned is the same.
PARTS = (
    "seed", "steps", "batch_size", "data", "schedule", "parameterization", "weight", "times", "process", "net",
    "label_dropout", "optimizer", "ema",
)  # fmt: skip
FREE_PARTS = ("every", "keep", "loader", "mesh", "sampler")
DATA_OPTIONS = ("split", "heldout", "flip", "range")  # beside those of the data set itself
OPTIONS = {
    "every": Rhythm._fields,
    "keep": ("last", "best"),
    "loader": ("workers", "threads", "prefetch"),
    "mesh": ("fsdp",),
    "sampler": ("solver", "steps", "num"),
}


class Experiment(NamedTuple):
    """A config as functions and numbers."""

    config: dict[str, Any]
    source: Source
    heldout: Source | None
    process: Process
    net: Net
    denoise: Callable  # (params, xt, t, cond, *, key=None) -> x0_hat
    loss: Callable  # (key, params, batch) -> [B]
    optimizer: optax.GradientTransformation
    rhythm: Rhythm


def pick(table: Mapping[str, Callable], kind: str, spec: Mapping[str, Any], /, *args: Any, **bound: Any) -> Any:
    """Call the row of `table` that spec["name"] names with spec's other entries as keywords, beside `args` and `bound`.

    Raises InputError for an unknown name or keyword (with the nearest spelling), a value of the wrong type, and for
    whatever the row itself refuses.
    """
    if "name" not in spec:
        raise InputError(f"the config's {kind} has no name; choose one of: {', '.join(sorted(table))}")
    name, options = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    if name not in table:
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
    except (ValueError, TypeError) as error:
        raise InputError(f"{kind} '{name}': {error}") from error


def build(config: Mapping[str, Any]) -> Experiment:
    """Everything that a config names, checked against each other.  Raises InputError."""
    config = _checked(config)
    split, heldout = config["data"]["split"], config["data"]["heldout"]
    data = {key: value for key, value in config["data"].items() if key not in DATA_OPTIONS}
    source = pick(DATASETS, "data", data, split)
    schedule = pick(SCHEDULES, "schedule", config["schedule"])
    if config["parameterization"].get("name") == "eps" and ends_in_pure_noise(schedule):
        raise InputError(
            f"parameterization 'eps' is ill-posed with schedule '{config['schedule']['name']}', for alpha(1) = 0 and "
            f"x_0 cannot be read off pure noise; use parameterization 'v', 'x0' or 'velocity', or schedule 'linear'"
        )
    process = pick(
        PROCESSES, "process", config["process"], schedule,
        pick(PARAMETERIZATIONS, "parameterization", config["parameterization"]),
        pick(WEIGHTS, "weight", config["weight"]),
    )  # fmt: skip
    pick(SOLVERS, "solver", {"name": config["sampler"]["solver"]}, process)  # now, not when the first preview is due
    net = _net(config["net"], source)
    denoise = denoiser(process, net.apply)
    times = pick(TIMES, "times", config["times"], schedule)
    return Experiment(
        config=config,
        source=source,
        heldout=pick(DATASETS, "data", data, heldout) if heldout else None,
        process=process,
        net=net,
        denoise=denoise,
        loss=_loss(denoise, process, times, null=source.classes, dropout=config["label_dropout"]),
        optimizer=_optimizer(config["optimizer"], config["steps"]),
        rhythm=Rhythm(**config["every"]),
    )


def batches(experiment: Experiment, *, process_index: int, process_count: int) -> Batches:
    """The training batches of one process, as a function of the step."""
    config = experiment.config
    return Batches(
        experiment.source, config["batch_size"], config["seed"], flip=config["data"]["flip"],
        value_range=tuple(config["data"]["range"]), process_index=process_index, process_count=process_count,
    )  # fmt: skip


def sampler(experiment: Experiment, spec: Mapping[str, Any], *, guided: bool) -> Callable:
    """(params, keys [B], ts [n + 1], labels [B] or None, scale) -> x [B, *S], by the solver that `spec` names.

    It is pure, to be compiled.  Without guidance `scale` is ignored and the network is called on the batch alone,
    otherwise on twice the batch.
    """
    solver = pick(SOLVERS, "solver", _without_idle_eta(spec), experiment.process)

    def run(params, keys, ts, labels, scale):
        def denoise(xt, t, cond):
            return experiment.denoise(params, xt, t, cond)

        guide = classifier_free(denoise, experiment.source.classes, scale) if guided else denoise
        like = jnp.zeros((len(keys), *experiment.source.shape))
        return generate(keys, guide, solver, process=experiment.process, ts=ts, like=like, cond=labels)

    return run


def _without_idle_eta(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Zero eta means "no noise", which every deterministic solver grants without having an option for it."""
    idle = spec.get("eta") == 0 and spec["name"] in DETERMINISTIC
    return {key: value for key, value in spec.items() if not (idle and key == "eta")}


def _loss(denoise, process, times, *, null: int, dropout: float) -> Callable:
    def loss(key, params, batch):
        label_key, loss_key, net_key = jax.random.split(key, 3)
        labels = batch.get("label")
        if labels is not None and dropout:
            labels = jnp.where(jax.random.bernoulli(label_key, dropout, labels.shape), null, labels)

        def rule(xt, t, cond):
            return denoise(params, xt, t, cond, key=net_key)

        return diffusion_loss(loss_key, rule, process, times=times, x0=batch["x"], cond=labels)

    return loss


def _net(spec, source: Source) -> Net:
    if spec.get("name") not in NETS:
        raise unknown("net", spec.get("name"), NETS)
    try:
        return functional(lambda rngs: pick(NETS, "net", spec, source.shape, source.classes, rngs=rngs))
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"net '{spec['name']}': {error}") from error


def _optimizer(spec, steps: int) -> optax.GradientTransformation:
    spec = dict(spec)
    peak, warmup, decay, clip = (spec.pop(key, None) for key in ("learning_rate", "warmup", "decay", "clip"))
    if peak is None:
        raise InputError("the config's optimizer has no learning_rate; set optimizer.learning_rate, for example 1e-3")
    shape = pick(DECAYS, "optimizer.decay", {"name": decay or "constant"}, steps)
    rate = warmed(peak, warmup=warmup or 0, decay=shape)
    return clipped(pick(OPTIMIZERS, "optimizer", spec, rate), norm=clip or 0.0)


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A plain copy with every part there and no other, and the numbers in range."""
    plain: dict[str, Any] = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for key in plain:
        if key not in PARTS + FREE_PARTS:
            raise unknown("config entry", key, PARTS + FREE_PARTS)
    for key in PARTS + FREE_PARTS:
        if key not in plain:
            raise InputError(f"the config has no '{key}'; add it as in configs/digits.py")
    for key in DATA_OPTIONS:
        if key not in plain["data"]:
            raise InputError(f"the config's data has no '{key}'; add it as in configs/digits.py")
    low, high = plain["data"]["range"]
    if not low < high:
        raise InputError(f"data.range must rise, as (-1, 1) does; got ({low}, {high})")
    for key, low, high in (("label_dropout", 0, 1), ("ema", 0, 1)):
        if not low <= plain[key] <= high:
            raise InputError(f"{key} must lie in [{low}, {high}]; got {plain[key]}")
    for part, known in OPTIONS.items():
        for key in [*plain[part], *known]:
            if key not in known:
                raise unknown(f"option of {part}", key, known)
            if key not in plain[part]:
                raise InputError(f"the config's {part} has no '{key}'; add it as in configs/digits.py")
    numbers = {key: plain[key] for key in ("steps", "batch_size")}
    numbers |= {f"sampler.{key}": plain["sampler"][key] for key in ("steps", "num")}
    for key, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{key} must be a whole number of at least 1; got {value!r}")
    return plain


def _typed(name: str, value: Any, wanted: Any) -> Any:
    """A value of the annotated type, whole numbers passing for floats; others of a plain type are refused."""
    accepted = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}.get(wanted)
    if accepted and (not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool)):
        raise InputError(f"{name} must be of type {wanted.__name__}; got {value!r}")
    return float(value) if wanted is float else value

"""Weights of another library as a run of ours, and back (interchange/ knows the files and the layouts).

A run that was imported is at step 0, with these weights as parameters and as average, and an optimizer that has seen
nothing: `sample.py` samples from it, and `train.py --allow_changes` trains it further.
"""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from tqdm import tqdm

from diffjax import training
from diffjax.data import Source
from diffjax.diffusion.types import Net
from diffjax.errors import InputError, unknown, writing
from diffjax.experiment import Experiment, build
from diffjax.interchange import containers, safetensors
from diffjax.interchange.layouts import Layout, Target, chosen, layout
from diffjax.interchange.rules import Pair, exported, imported, pair
from diffjax.model import load
from diffjax.nets import NETS
from diffjax.record import claim, describe, meta_of, read_record, say, write_record

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
MANY = 200  # tensors from which progress is shown


def import_weights(
    source: str | Path, name: str, config: Mapping[str, Any], workdir: str | Path, *,
    shape: tuple[int, ...] | None = None, classes: int | None = None, at: str | None = None,
) -> Experiment:  # fmt: skip
    """Make the run `workdir` of the weights in the file or folder `source`, in layout `name`.

    What the weights say of their network goes before the config's net; shape and classes are theirs, or those given, or
    those of the config's data.  `at` is where in the file they are.  Raises InputError unless every array of theirs is
    used once and every parameter of ours is filled.
    """
    workdir = Path(workdir)
    if read_record(workdir) is not None:
        raise InputError(f"{workdir} holds a run already; name a new workdir")
    kind, arrays = layout(name), containers.read(source)
    arrays = chosen(kind, arrays, at)
    experiment = _experiment(config, kind, arrays, containers.facts(source), shape=shape, classes=classes)
    target = target_of(experiment)
    pairs = pairs_of(kind, name, target)
    found = imported(pairs, target.leaves, arrays, fixed=kind.fixed(target), progress=_shown)
    _save(experiment, _tree(experiment, found), workdir)
    say(f"{len(found)} parameters, {sum(a.size for a in found.values()):,} numbers, are in {workdir} at step 0")
    return experiment


def export_weights(
    workdir: str | Path, name: str, out: str | Path, *, raw: bool = False, step: int | None = None,
    dtype: str = "float32",
) -> None:  # fmt: skip
    """Write the average of a run, or with `raw` its parameters, as safetensors in layout `name`."""
    if Path(out).suffix != ".safetensors":
        raise InputError(f"weights are written as .safetensors; got {out}")
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    model, kind = load(workdir, raw=raw, step=step), layout(name)
    target = target_of(model.experiment)
    ours = training.named(jax.device_get(model.params))
    theirs = exported(pairs_of(kind, name, target), ours, fixed=kind.fixed(target))
    with writing(Path(out).parent):
        safetensors.write(out, {n: a.astype(DTYPES[dtype], copy=False) for n, a in theirs.items()}, {"format": "pt"})
    say(f"{len(theirs)} tensors of step {model.step} are in {out}")


def target_of(experiment: Experiment) -> Target:
    """What a layout asks of an experiment's network."""
    source = experiment.source
    return target_of_net(experiment.net, experiment.config["net"], source.shape, source.classes)


def target_of_net(net: Net, spec: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> Target:
    """The same, of a network that a config's `net` describes."""
    leaves = training.named(jax.eval_shape(net.init, jax.random.key(0)))
    options = {name: p.default for name, p in inspect.signature(NETS[spec["name"]]).parameters.items()}
    return Target({name: leaf.shape for name, leaf in leaves.items()}, {**options, **spec}, shape, classes)


def pairs_of(kind: Layout, name: str, target: Target) -> list[Pair]:
    """The pairs of a layout.  Raises InputError if it is not for this net."""
    if target.net["name"] not in kind.nets:
        raise InputError(f"layout '{name}' is of nets {', '.join(kind.nets)}; the config's is '{target.net['name']}'")
    return pair(kind.rows(target), target.leaves)


def _experiment(config, kind: Layout, arrays, said, *, shape, classes) -> Experiment:
    """The config's, with the net and the data that the weights are of."""
    facts = kind.facts(said, arrays)
    if facts.net:
        shown = {key: value if len(repr(value)) < 100 else "..." for key, value in facts.net.items()}
        say(f"the weights say of their net: {shown}")
    same = facts.net.get("name", config["net"]["name"]) == config["net"]["name"]
    net = {**(config["net"] if same else {}), **facts.net}  # another row has other options
    config = {**config, "net": net}
    if net.get("outputs") == 2 and config["process"]["name"] == "gaussian":
        config["process"] = {"name": "learned_variance"}
        say("the net answers twice, so its process is learned_variance")
    shape = facts.shape if shape is None else shape
    classes = facts.classes if classes is None else classes
    if shape is None:
        return build(config)
    source = Source(_nothing, size=1, shape=tuple(shape), classes=classes or 0)
    return build(config, source=source)


def _nothing(indices: np.ndarray) -> dict[str, np.ndarray]:
    """Data that is not here: weights need none."""
    return {}


def _tree(experiment: Experiment, found: Mapping[str, np.ndarray]) -> Any:
    shapes = jax.eval_shape(experiment.net.init, jax.random.key(0))
    leaves = [jnp.asarray(found[name], leaf.dtype) for name, leaf in training.named(shapes).items()]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _save(experiment: Experiment, params: Any, workdir: Path) -> None:
    """As `train` leaves a run before its first step."""
    record = describe(experiment)
    claim(workdir, record, allow_changes=False)
    key = jax.random.key(experiment.config["seed"])
    state = training.initial(lambda _: params, experiment.optimizer, experiment.average, key)
    with training.open_checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(0, state, meta=meta_of(record, 0), wait=True)
    write_record(workdir, record)


def _shown(pairs: Iterable[Pair]) -> Iterable[Pair]:
    pairs = list(pairs)
    return tqdm(pairs, desc="converting", unit="parameter", disable=len(pairs) < MANY)

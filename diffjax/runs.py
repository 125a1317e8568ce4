"""A run is a folder: train into it, continue in it.

workdir/config.json       the config, saved before the first step and compared whenever the run continues
workdir/checkpoints/      the state: newest and best, verified when read
workdir/metrics.jsonl     numbers; the same in tensorboard/
workdir/previews/         samples drawn on the way
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffjax import data, training
from diffjax.errors import InputError
from diffjax.evaluation import make_evaluate, picture
from diffjax.experiment import FREE_PARTS, Experiment, batches, build
from diffjax.model import make_sample, read_record


def cache_compilations() -> None:
    """Keep compiled programs between processes: in $JAX_COMPILATION_CACHE_DIR, or else in ~/.cache/diffjax."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "diffjax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def connect() -> None:
    """Join the processes of one run, before anything else of jax: on a TPU pod or under SLURM jax finds them by itself,
    elsewhere JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID name them.
    """
    variables = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
    try:
        given: dict[str, Any] = {
            option: int(os.environ[name]) for option, name in variables.items() if name in os.environ
        }
        jax.distributed.initialize(**given)
    except ValueError as error:
        raise InputError(
            f"cannot connect the processes of this run: {error}; outside a TPU pod or a SLURM job set "
            f"JAX_COORDINATOR_ADDRESS, {' and '.join(variables.values())} for each of them"
        ) from error


def train(config: Mapping[str, Any], workdir: str | Path, *, allow_changes: bool = False) -> None:
    """Train as `config` says, in `workdir`; continue what is there already, return at once if it is finished.

    A config that would change a run that is there is refused unless `allow_changes`.  Raises InputError for whatever is
    wrong with config, data or folder, before anything compiles.
    """
    experiment, workdir = build(config), Path(workdir)
    config = experiment.config
    mesh = _mesh(config)
    local = batches(experiment, rows=training.local_rows(mesh, config["batch_size"]))
    _claim(workdir, _record(experiment), allow_changes=allow_changes)
    init, step, target = _compile(experiment, mesh)
    keep = config["keep"]
    with (
        training.open_checkpoints(
            workdir / "checkpoints", keep_last=keep["last"], keep_best=keep["best"]
        ) as checkpoints,
        _interruptible() as interrupted,
    ):
        restored = checkpoints.restore(target)
        state = init(jax.random.key(config["seed"])) if restored is None else restored[0]
        start = int(state.step)
        if start >= config["steps"]:
            _say(f"training is complete: {workdir} is at step {start} of {config['steps']}")
            return
        _save_record(workdir, _record(experiment))  # only now: a state that does not fit has been refused
        _say(f"data: {data.describe(experiment.source, tuple(config['data']['range']))}")
        size = sum(leaf.size for leaf in jax.tree.leaves(target.params))
        verb = "starting" if restored is None else "continuing"
        _say(f"{verb} at step {start}: {size:,} parameters, {mesh.size} device(s)")
        sharding = training.batch_sharding(mesh)
        stream = (training.to_devices(rows, sharding) for rows in data.stream(local, start, **config["loader"]))
        report = training.Report(
            workdir, start=start, total=config["steps"], rows=config["batch_size"], unit=experiment.source.unit,
            quiet=jax.process_index() != 0,
        )  # fmt: skip
        actions = _actions(experiment, workdir, checkpoints, interrupted=interrupted, sharding=sharding)
        with report:
            training.fit(
                step,
                state,
                stream,
                steps=range(start, config["steps"]),
                rhythm=experiment.rhythm,
                actions=actions,
                report=report,
            )


def _actions(
    experiment: Experiment, workdir: Path, checkpoints, *, interrupted: Callable, sharding
) -> training.Actions:
    """What the loop calls between steps."""
    config = experiment.config
    value_range = tuple(config["data"]["range"])
    evaluate = make_evaluate(experiment.denoise, experiment.process)
    fixed = []
    if experiment.heldout:
        rows = data.heldout(experiment.heldout, config["batch_size"], value_range=value_range)
        fixed = [training.spread(batch, sharding) for batch in rows]
    sample, classes = make_sample(experiment), experiment.source.classes

    def judge(state):
        return evaluate(state.ema[0], fixed) if fixed else {}

    def preview(state, step):
        labels = np.arange(classes) if classes else None
        n = config["sampler"]["num"]
        x = sample(state.ema[0], jax.random.key(0), n, labels=labels)
        if jax.process_index() != 0:
            return
        try:
            sheet = picture(x, value_range, labels=None if labels is None else np.resize(labels, n))
        except ValueError:  # samples of a shape that has no picture
            return
        (workdir / "previews").mkdir(exist_ok=True)
        sheet.save(workdir / "previews" / f"{step:07d}.png")

    def save(state, step, score):
        position = {"step": step, "seed": config["seed"], "examples": step * config["batch_size"]}
        meta = {"step": step, "position": position, **_record(experiment)}
        checkpoints.save(step, state, meta=meta, metric=score)

    def stop(step):
        if jax.process_count() > 1:  # all processes must stop at the same step: the signal is passed around
            return checkpoints.reached_preemption(step)
        return interrupted()

    return training.Actions(judge, preview, save, stop)


def _interruptible() -> contextlib.AbstractContextManager[Callable[[], bool]]:
    """Our own signal handling in a run of one process; with several, jax passes SIGTERM around (see `stop` above)."""
    return training.interruptible() if jax.process_count() == 1 else contextlib.nullcontext(lambda: False)


def _mesh(config: Mapping[str, Any]) -> jax.sharding.Mesh:
    try:
        mesh = training.make_mesh(**config["mesh"])
    except ValueError as error:
        raise InputError(str(error)) from None
    devices, accumulate = training.row_parts(mesh), config["memory"]["accumulate"]
    if config["batch_size"] % (devices * accumulate):
        raise InputError(
            f"batch_size={config['batch_size']} does not split over data x fsdp = {devices} devices and "
            f"memory.accumulate={accumulate} parts; make it a multiple of {devices * accumulate}"
        )
    return mesh


def _compile(experiment: Experiment, mesh: jax.sharding.Mesh) -> tuple[Callable, Callable, training.State]:
    """(init, step, abstract state) of an experiment on a mesh."""
    e, parts = experiment, experiment.config["memory"]["accumulate"]
    step = training.make_step(e.draw, e.loss, e.optimizer, e.average, parts=parts)
    init = partial(training.initial, e.net.init, e.optimizer, e.average)
    return training.compile_step(step, init, mesh, overrides=e.splits)


def _record(experiment: Experiment) -> dict[str, Any]:
    """What identifies a run, as JSON reads it back."""
    source = experiment.source
    versions = {module.__name__: module.__version__ for module in (jax, np)}
    described = {"size": source.size, "shape": source.shape, "classes": source.classes}
    return json.loads(json.dumps({"config": experiment.config, "data": described, "versions": versions}))


def _claim(workdir: Path, record: Mapping[str, Any], *, allow_changes: bool) -> None:
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


def _save_record(workdir: Path, record: Mapping[str, Any]) -> None:
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
    kept = {"config": {k: v for k, v in saved["config"].items() if k not in FREE_PARTS}, "data": saved["data"]}
    wanted = {"config": {k: v for k, v in record["config"].items() if k not in FREE_PARTS}, "data": record["data"]}
    before, now = dict(_flat(kept)), dict(_flat(wanted))
    changes = [
        f"{name}: {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
        for name in sorted({*before, *now})
        if before.get(name, "absent") != now.get(name, "absent")
    ]
    if changes and not allow_changes:
        raise InputError(
            f"{workdir} holds a run with another config, and continuing would change it ({'; '.join(changes)}); "
            f"use the saved config or another workdir, or continue anyway with --allow_changes"
        )
    for change in changes:
        _say(f"continuing with a changed config: {change}")


def _flat(tree: Any, prefix: str = ""):
    """Nested dicts as ('config.net.width', 32), ..."""
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for key, value in tree.items():
        yield from _flat(value, f"{prefix}.{key}" if prefix else key)


def _say(sentence: str) -> None:
    if jax.process_index() == 0:
        print(sentence, flush=True)

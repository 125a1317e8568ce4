"""A run is a folder: train into it, continue in it.

workdir/config.json       the config, saved before the first step and compared whenever the run continues
workdir/checkpoints/      the state: newest and best, verified when read
workdir/metrics.jsonl     numbers; the same in tensorboard/
workdir/previews/         samples drawn on the way
workdir/blackbox/         what is needed to do again a step that went wrong (blackbox.py)
workdir/averages/         snapshots of the averages, of which others are made (averages.py)
workdir/profile/          a trace of some steps, if asked for
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffjax import blackbox, data, training
from diffjax.errors import writing
from diffjax.evaluation import make_evaluate, picture
from diffjax.experiment import Experiment, batches, build
from diffjax.model import make_sample
from diffjax.program import flops_per_step, mesh_of, program
from diffjax.record import agree, claim, describe, meta_of, say, write_record
from diffjax.training.cost import peak_flops


def train(
    config: Mapping[str, Any], workdir: str | Path, *, allow_changes: bool = False, profile: int = 0, wandb: str = ""
) -> None:
    """Train as `config` says, in `workdir`; continue what is there already, return at once if it is finished.

    `profile` traces so many steps into workdir/profile; `wandb` names a project of Weights & Biases.  A config that
    would change a run that is there is refused unless `allow_changes`.  Raises InputError for whatever is wrong with
    config, data or folder, before anything compiles.
    """
    experiment, workdir = build(config), Path(workdir)
    config = experiment.config
    mesh = mesh_of(config)
    local = batches(experiment, rows=training.local_rows(mesh, config["batch_size"]))
    record = describe(experiment)
    agree(record)
    claim(workdir, record, allow_changes=allow_changes)
    init, step, target = program(experiment, mesh)
    folder, keep = workdir / "checkpoints", config["keep"]
    with (
        training.open_checkpoints(folder, keep_last=keep["last"], keep_best=keep["best"]) as checkpoints,
        _snapshots(workdir, config["every"]["snapshot"]) as snapshots,
        _interruptible() as interrupted,
    ):
        restored = checkpoints.restore(target)
        state = init(jax.random.key(config["seed"])) if restored is None else restored[0]
        start = int(state.step)
        if start >= config["steps"]:
            say(f"training is complete: {workdir} is at step {start} of {config['steps']}")
            return
        write_record(workdir, record)  # only now: a state that does not fit has been refused
        if snapshots is not None:
            snapshots.discard_after(start)
        verb = "starting" if restored is None else "continuing"
        size = sum(leaf.size for leaf in jax.tree.leaves(target.params))
        say(f"data: {data.describe(experiment.source, tuple(config['data']['range']))}")
        say(f"{verb} at step {start}: {size:,} parameters, {mesh.size} device(s)")
        actions = _actions(
            experiment, workdir, record, checkpoints, snapshots=snapshots, interrupted=interrupted, mesh=mesh
        )
        _fit(experiment, workdir, local, step, state, mesh, actions=actions, profile=profile, wandb=wandb)


def _fit(experiment: Experiment, workdir, local, step, state, mesh, *, actions, profile: int, wandb: str) -> None:
    """The loop, from the step of `state` to the config's last."""
    config, start = experiment.config, int(state.step)
    steps = range(start, config["steps"])
    calls = training.calls(steps, experiment.rhythm, config["steps_per_call"])
    stream = training.ahead(data.stream(local, start, **config["loader"]), calls, mesh)
    report = _report(experiment, workdir, start, mesh, wandb=wandb)
    profiled = training.Profile(workdir / "profile", profile)
    with report, contextlib.closing(profiled), contextlib.closing(stream):
        training.fit(
            step, state, stream, steps=steps, rhythm=experiment.rhythm, actions=actions,
            report=report, watch=training.Watch(**config["watch"]), profile=profiled,
        )  # fmt: skip


def _report(experiment: Experiment, workdir: Path, start: int, mesh, *, wandb: str) -> training.Report:
    config, quiet = experiment.config, jax.process_index() != 0
    peak = peak_flops(mesh.devices.flat)

    def facts(step):
        rate = np.asarray(experiment.rate(np.float32(step - 1))).item()
        return {"learning_rate": rate} | experiment.average.spans(step)

    return training.Report(
        workdir, start=start, total=config["steps"], rows=config["batch_size"], unit=experiment.source.unit,
        quiet=quiet, facts=facts, utilisation=flops_per_step(experiment) / peak if peak else 0.0,
        wandb=training.WandB(wandb, workdir, config) if wandb and not quiet else None,
    )  # fmt: skip


def _actions(
    experiment: Experiment, workdir: Path, record: Mapping[str, Any], checkpoints, *, snapshots,
    interrupted: Callable[[], bool], mesh,
) -> training.Actions:  # fmt: skip
    """What the loop calls between steps."""

    def save(state, step, score):
        checkpoints.save(step, state, meta=meta_of(record, step), metric=score)

    def snapshot(state, step):
        snapshots.save(step, {"ema": state.ema}, meta={"step": step})

    def alarm(step, reason, recent):
        newest = max((saved for saved in checkpoints.steps() if saved <= step), default=-1)
        return blackbox.dump(workdir, experiment, record, step=step, reason=reason, recent=recent, newest=newest)

    def stop(step):
        if jax.process_count() > 1:  # all processes must stop at the same step: the signal is passed around
            return checkpoints.reached_preemption(step)
        return interrupted()

    judge, preview = _judge(experiment, training.batch_sharding(mesh)), _preview(experiment, workdir)
    return training.Actions(judge, preview, save, snapshot, alarm, stop)


def _judge(experiment: Experiment, sharding) -> Callable:
    """(state) -> what its average is worth on the data held out, which stay on the devices; {} if there are none."""
    if not experiment.heldout:
        return lambda state: {}
    config = experiment.config
    evaluate = make_evaluate(experiment.denoise, experiment.process)
    rows = data.heldout(experiment.heldout, config["batch_size"], value_range=tuple(config["data"]["range"]))
    fixed = [training.spread(batch, sharding) for batch in rows]
    return lambda state: evaluate(state.ema[0], fixed) if fixed else {}


def _preview(experiment: Experiment, workdir: Path) -> Callable:
    """(state, step): draw samples by the average, of every class, into one picture."""
    config, sample, classes = experiment.config, make_sample(experiment), experiment.source.classes

    def preview(state, step):
        labels, n = np.arange(classes) if classes else None, config["sampler"]["num"]
        x = sample(state.ema[0], jax.random.key(0), n, labels=labels)
        if jax.process_index() != 0:
            return
        try:
            shown = None if labels is None else np.resize(labels, n)
            sheet = picture(x, tuple(config["data"]["range"]), labels=shown)
        except ValueError:  # samples of a shape that has no picture
            return
        with writing(workdir):
            (workdir / "previews").mkdir(exist_ok=True)
            sheet.save(workdir / "previews" / f"{step:07d}.png")

    return preview


def _snapshots(workdir: Path, every: int) -> contextlib.AbstractContextManager:
    """The store of snapshots, which keeps them all; None where none are taken."""
    if not every:
        return contextlib.nullcontext()
    return training.open_checkpoints(workdir / "averages", keep_last=2**31, keep_best=0)


def _interruptible() -> contextlib.AbstractContextManager[Callable[[], bool]]:
    """Our own signal handling in a run of one process; with several, jax passes SIGTERM around (see `stop` above)."""
    return training.interruptible() if jax.process_count() == 1 else contextlib.nullcontext(lambda: False)

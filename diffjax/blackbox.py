"""The black box of a run: what is needed to do a step again that went wrong, and doing it.

workdir/blackbox/STEP/dump.json     the step, why, the losses before it, the examples of its batch, config and versions
workdir/blackbox/STEP/checkpoint/   the checkpoint that it is reached from

A step is a function of the state before it, which is a function of a checkpoint and of the steps between: nothing else
needs to be kept.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from diffjax import data, training
from diffjax.errors import InputError
from diffjax.experiment import Experiment, batches, build
from diffjax.program import mesh_of, program
from diffjax.record import describe, say


def dump(
    workdir: Path, experiment: Experiment, described: Mapping[str, Any], *,
    step: int, reason: str, recent: Sequence[Mapping[str, float]], newest: int,
) -> Path:  # fmt: skip
    """Write the black box of `step` (the number of steps before it); `newest` is a checkpoint's step, or -1."""
    config, folder = experiment.config, workdir / "blackbox" / str(step)
    if jax.process_index() != 0 or folder.exists():
        return folder
    positions = step * config["batch_size"] + np.arange(config["batch_size"])
    examples = data.order(positions, experiment.source.size, config["seed"])
    kept = {"step": step, "reason": reason, "checkpoint": newest, "examples": examples.tolist(), "recent": list(recent)}
    draft = folder.with_name(f"{step}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        if newest >= 0:
            shutil.copytree(workdir / "checkpoints" / str(newest), draft / "checkpoint" / str(newest))
        (draft / "dump.json").write_text(json.dumps({**kept, **described}, indent=1))
        draft.rename(folder)
    except OSError as error:  # the run's own trouble is what is to be told
        say(f"cannot write the black box {folder}: {error}")
    return folder


def replay(folder: str | Path) -> dict[str, Any]:
    """Do the step of a black box again, on the devices that are here, and print what its layers and rows held.

    Also written to replay.json beside the dump.  Raises InputError if it cannot be read.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / "dump.json").read_text())
        step, newest, recent = record["step"], record["checkpoint"], record["recent"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read the black box {folder}: {type(error).__name__}: {error}") from error
    experiment = build(record["config"])
    for name, version in describe(experiment)["versions"].items():
        if record["versions"].get(name) != version:
            say(f"{name} is {version} here and was {record['versions'].get(name)}: digits may differ")
    mesh = mesh_of(experiment.config)
    init, run, target = program(experiment, mesh)
    state = init(jax.random.key(experiment.config["seed"]))
    if newest >= 0:
        with training.open_checkpoints(folder / "checkpoint", read_only=True) as checkpoints:
            restored = checkpoints.restore(target, step=newest)
        assert restored is not None
        state = restored[0]
    local = batches(experiment, rows=training.local_rows(mesh, experiment.config["batch_size"]))
    steps = range(int(state.step), step)
    calls = list(training.calls(steps, experiment.rhythm, experiment.config["steps_per_call"]))  # as the run did
    for batch in tqdm(training.ahead(map(local, steps), calls, mesh), total=len(calls), disable=len(calls) < 20):
        state, _ = run(state, batch)
    inspect = training.make_inspect(experiment.draw, experiment.loss, experiment.optimizer)
    same = training.replicated(mesh)
    found = jax.jit(inspect, out_shardings=same)(state, training.to_devices(local(step), training.batch_sharding(mesh)))
    found = jax.tree.map(lambda a: np.asarray(a).tolist(), found)
    seen = {"step": step, "reason": record["reason"], "loss": float(np.mean(found["rows"]["loss"]))} | found
    _show(seen, record["examples"], recent)
    if jax.process_index() == 0:
        (folder / "replay.json").write_text(json.dumps(seen, indent=1))
    return seen


def _show(seen: Mapping[str, Any], examples: Sequence[int], recent: Sequence[Mapping[str, float]]) -> None:
    say(f"step {seen['step']}: {seen['reason']}")
    if recent and math.isfinite(recent[-1]["loss"]):
        say(f"loss {seen['loss']:.6g}, in the run {recent[-1]['loss']:.6g}")
    columns = training.COLUMNS
    width = max(map(len, seen["layers"]))
    say("  ".join([f"{'layer':{width}s}", *(f"{name:>10s}" for name in columns)]))
    for name, layer in seen["layers"].items():
        say("  ".join([f"{name:{width}s}", *(f"{layer[column]:10.3g}" for column in columns)]))
    loss = np.asarray(seen["rows"]["loss"])
    worst = np.argsort(-np.where(np.isfinite(loss), loss, np.inf))[:8]
    levels = seen["rows"].get("t", [math.nan] * len(loss))
    say("worst rows:  " + "; ".join(f"example {examples[i]} at t={levels[i]:.3f} lost {loss[i]:.4g}" for i in worst))

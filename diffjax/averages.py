"""Averages of a run that were not tracked: rebuilt from its snapshots, and compared.

Snapshots are read one at a time, onto the devices, so that what fits is one more copy of the parameters for each
average that is being rebuilt.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from diffjax import data, training
from diffjax.errors import InputError
from diffjax.evaluation import make_evaluate, plots
from diffjax.experiment import Experiment, build, require_heldout
from diffjax.record import record_of
from diffjax.training.posthoc import Snapshot, coefficients, combine

STDS = 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25


def rebuild(
    experiment: Experiment, workdir: Path, stds: Sequence[float], *, step: int | None = None
) -> tuple[list[tuple[Any, float]], int]:
    """[(params, residual), ...] of power-function averages of these lengths, and the step: the last snapshot's, or one.

    The residual is the part of the average's weights that no combination of the snapshots has.  Raises InputError
    where there are no snapshots, and for a length that cannot be.
    """
    tracked, stds = experiment.average.stds, list(stds)
    with training.open_checkpoints(workdir / "averages", read_only=True) as store:
        steps = [taken for taken in store.steps() if step is None or taken <= step]
        known = [Snapshot(std, taken) for taken in steps for std in tracked]
        try:
            plans = [coefficients(known, Snapshot(std, steps[-1] if steps else 1)) for std in stds]
        except ValueError as error:
            raise InputError(f"cannot rebuild an average of {workdir}: {error}") from None
        same = training.replicated(training.make_mesh())
        shapes = jax.eval_shape(experiment.average.init, jax.eval_shape(experiment.net.init, jax.random.key(0)))
        target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=same), shapes)
        totals: list[Any] = [None] * len(stds)
        for i, taken in enumerate(tqdm(steps, unit="snapshot", disable=len(steps) < 20)):
            restored = store.restore({"ema": target}, step=taken)
            assert restored is not None
            for j, (x, _) in enumerate(plans):
                own = x[i * len(tracked) : (i + 1) * len(tracked)]
                some = combine(own, restored[0]["ema"])
                totals[j] = some if totals[j] is None else combine((1, 1), (totals[j], some))
    return [(total, residual) for total, (_, residual) in zip(totals, plans, strict=True)], steps[-1]


def sweep(workdir: str | Path, stds: Sequence[float] = STDS, *, step: int | None = None) -> Path:
    """Score the averages of these lengths on the held-out data; the path of the picture, beside it ema.json."""
    workdir = Path(workdir)
    experiment = build(record_of(workdir)["config"])
    config = experiment.config
    rows = data.heldout(require_heldout(experiment), config["batch_size"], value_range=tuple(config["data"]["range"]))
    sharding = training.batch_sharding(training.make_mesh())
    fixed = [training.spread(batch, sharding) for batch in rows]
    evaluate = make_evaluate(experiment.denoise, experiment.process)
    table = []
    for std, (params, residual) in zip(stds, rebuild(experiment, workdir, stds, step=step)[0], strict=True):
        table.append({"std": float(std), "residual": residual} | evaluate(params, fixed))
        print(f"std {std:.4f}   held-out loss {table[-1]['heldout_loss']:.6f}   residual {residual:.1e}", flush=True)
    best = min(table, key=lambda row: row["heldout_loss"])
    print(f"least at std {best['std']:.4f}; sample with it: python sample.py --workdir {workdir} --ema {best['std']:g}")
    folder = workdir / "evaluation"
    folder.mkdir(exist_ok=True)
    (folder / "ema.json").write_text(json.dumps(table, indent=1))
    points = np.asarray([(row["std"], row["heldout_loss"]) for row in table])
    names = dict(x="relative standard deviation of the average", y="held-out loss")
    return plots.save(plots.curve(points, marks=experiment.average.stds, least=True, **names), folder / "ema.png")

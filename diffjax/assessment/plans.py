"""A plan: the solver, its options and its times that make the most of so many network calls of one run.

    python evaluate.py plan --workdir runs/digits --budget 10        writes <workdir>/evaluation/plan_10.json
    python sample.py --workdir runs/digits --plan runs/digits/evaluation/plan_10.json

It is measured on the model itself (evaluation/planner.py).  The file is a function of the run and of what was asked
for, to the last bit; what a clock has said is beside it, in plan_10.report.json.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax import __version__
from diffjax.diffusion.gaussian import mean
from diffjax.diffusion.grids import GRIDS, check
from diffjax.diffusion.guidance import classifier_free
from diffjax.diffusion.sampling import row_keys
from diffjax.errors import InputError, unknown, writing
from diffjax.evaluation import plots
from diffjax.evaluation.planner import QUALITIES, Row, make_field, plan
from diffjax.evaluation.rollouts import Starts
from diffjax.model import Model, cycled, load, require_guidance
from diffjax.record import identity, record_of

FORMAT, MOST = 1, 50
TYPES = {
    "format": int, "version": str, "run": str, "step": int, "solver": str, "options": dict, "times": list, "calls": int,
    "guidance": (int, float, type(None)), "labels": (list, type(None)), "quality": str, "error": float,
}  # fmt: skip
DECIDED = "solver", "steps", "grid", "start", "eta", "churn", "step", "ema", "raw"


def read_plan(path: str | Path) -> dict[str, Any]:
    """The plan in a file.  Raises InputError, in a sentence, for a file that is none."""
    again = "make one with python evaluate.py plan"
    try:
        made = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the plan {path}: {error}; {again}") from error
    if not isinstance(made, dict) or made.get("format") != FORMAT:
        found = made.get("format") if isinstance(made, dict) else None
        raise InputError(f"{path} is a plan of format {found}, and this version reads format {FORMAT}; {again}")
    wrong = [key for key, kind in TYPES.items() if not isinstance(made.get(key, ...), kind)]
    if wrong:
        raise InputError(f"the plan {path} lacks {', '.join(wrong)}, or has them of another type; {again}")
    try:
        check(made["times"])
    except (ValueError, TypeError) as error:
        raise InputError(f"the times of the plan {path} are no grid: {error}; {again}") from error
    return made


def obeying(
    *, plan: str | Path | None, workdir: str | Path | None = None, guidance: float | None = None, **chosen: Any
) -> dict:
    """The keywords of `sample_to_folder` or `score`, those that a plan decides filled in.

    Raises InputError if two disagree, or for a plan without a run.
    """
    if plan is None:
        return {"workdir": workdir, "guidance": guidance} | chosen
    if workdir is None:
        raise InputError(f"the plan {plan} is of a run; name it with --workdir")
    against = [f"--{name}" for name in DECIDED if not (chosen.get(name) is None or chosen[name] is False)]
    if against:
        raise InputError(f"a plan decides what {' and '.join(against)} would; leave out one or the other")
    made = read_plan(plan)
    if made["run"] != identity(record_of(workdir))["run"]:
        raise InputError(
            f"{plan} was measured on another run than that in {workdir}; make one with python evaluate.py plan "
            f"--workdir {workdir}"
        )
    if guidance not in (None, made["guidance"]):
        raise InputError(
            f"{plan} was measured with guidance {made['guidance']}; got {guidance}: leave it out, or make a plan with "
            f"python evaluate.py plan --guidance {guidance:g}"
        )
    decided = {name: made[name] for name in ("solver", "times", "step", "guidance")}
    return {"workdir": workdir} | chosen | decided | made["options"]


def make_plan(
    workdir: str | Path, *, budget: int | None = None, milliseconds: float | None = None, guidance: float | None = None,
    labels: Sequence[int] | None = None, quality: str = "rms", num: int = 64, seed: int = 0, step: int | None = None,
) -> Path:  # fmt: skip
    """Plan for so many network calls, or so many milliseconds for `num` samples; the path of the plan.

    It is measured on `num` trajectories, their labels in turn: all classes, if none are named.  Raises InputError.
    """
    if quality not in QUALITIES:
        raise unknown("quality", quality, QUALITIES)
    if budget is not None and not 1 <= budget <= MOST:
        raise InputError(f"a plan is for 1 to {MOST} network calls; got {budget}")
    if num < 4 or num % 2:
        raise InputError(f"a plan needs an even number of trajectories, at least 4; got --num {num}")
    run, model = identity(record_of(workdir)), load(workdir, step=step)
    if guidance is not None:
        require_guidance(model.experiment)
    classes = model.experiment.source.classes
    labels = list(range(classes)) if labels is None and classes else labels
    label = cycled(labels, num, classes, guidance=guidance)
    clock = _clock(model, num, labels=labels, guidance=guidance)
    calls = _affordable(clock, milliseconds) if budget is None else budget
    rows = _measured(model, label, guidance, calls=calls, quality=quality, num=num, seed=seed)
    best, about = rows[0], run | {"step": model.step, "guidance": guidance, "labels": labels, "quality": quality}
    made = {
        "format": FORMAT, "version": __version__, **about, "solver": best.solver, "options": best.options,
        "times": [round(float(t), 7) for t in best.times], "calls": best.calls, "error": float(f"{best.error:.6g}"),
        "num": num, "seed": seed,
    }  # fmt: skip
    return _write(Path(workdir) / "evaluation", calls, made, about | {"budget": calls}, rows, clock)


def _measured(model: Model, label: Any, guidance: float | None, *, calls: int, quality: str, num: int, seed: int):
    """All rows within so many calls, the best first."""
    experiment = model.experiment

    def answer(xt, t, cond):
        return experiment.denoise(model.params, xt, t, cond)

    denoise = mean(answer) if experiment.config["process"]["name"] == "learned_variance" else answer
    if guidance is not None:
        denoise = classifier_free(denoise, experiment.source.classes, jnp.float32(guidance))
    like = jnp.zeros((num, *experiment.source.shape))
    starts = Starts(row_keys(jax.random.key(seed), num), like, None if label is None else jnp.asarray(label))
    return plan(make_field(denoise, experiment.fixed, starts, most=calls, quality=quality), calls, tqdm)


def _clock(model: Model, num: int, **chosen: Any) -> tuple[float, float]:
    """(milliseconds of drawing `num` samples without a call, and of every call): medians of the compiled sampler."""

    def taken(steps):
        start = time.perf_counter()
        model.sample(jax.random.key(0), num, solver="ddim", steps=steps, batch=num, **chosen)
        return 1e3 * (time.perf_counter() - start)

    taken(2)  # compiles
    few, many = (statistics.median(taken(steps) for _ in range(5)) for steps in (2, 12))
    each = max((many - few) / 10, 1e-6)
    return max(few - 2 * each, 0.0), each


def _affordable(clock: tuple[float, float], milliseconds: float | None) -> int:
    if milliseconds is None:
        raise InputError("a plan needs a budget; give --budget in network calls, or --milliseconds")
    calls = int((milliseconds - clock[0]) / clock[1])
    if calls < 1:
        raise InputError(
            f"one call takes {clock[1]:.1f} ms and the rest {clock[0]:.1f} ms, more than {milliseconds:g} ms; give "
            f"more --milliseconds or a smaller --num"
        )
    return min(calls, MOST)


def _write(
    folder: Path, calls: int, made: Mapping, about: Mapping, rows: Sequence[Row], clock: tuple[float, float]
) -> Path:
    """plan_<calls>.json, its report, and the picture of all reports of the same kind that are there."""
    points = [[row.rule, row.grid, row.calls, row.error] for row in rows if np.isfinite(row.error)]
    report = {
        **about, "predicted_milliseconds": clock[0] + clock[1] * made["calls"], "milliseconds_per_call": clock[1],
        "device": jax.devices()[0].device_kind, "rows": points,
    }  # fmt: skip
    path = folder / f"plan_{calls}.json"
    with writing(folder):
        folder.mkdir(exist_ok=True)
        path.write_text(json.dumps(made, indent=1) + "\n")
        path.with_suffix(".report.json").write_text(json.dumps(report, indent=1) + "\n")
    reports = [json.loads(other.read_text()) for other in sorted(folder.glob("plan_*.report.json"))]
    same = [r["rows"] for r in reports if all(r.get(key) == about[key] for key in about if key != "budget")]
    fixed = [row[2:] for rows in same for row in rows if row[1] in GRIDS]
    plans = np.asarray([rows[0][2:] for rows in same])
    figure = plots.pareto(np.asarray(fixed), plans, x="network calls", y=f"{made['quality']} to the teacher's ends")
    plots.save(figure, path.with_suffix(".png"))
    print(f"{rows[0].rule}, {rows[0].grid}: {made['quality']} {rows[0].error:.4g} in {made['calls']} calls")
    best = min((row for row in points if row[1] in GRIDS), key=lambda row: row[3])
    print(f"the best named grid: {best[0]}, {best[1]}: {best[3]:.4g} in {best[2]} calls")
    print(f"predicted: {report['predicted_milliseconds']:.0f} ms for {made['num']} samples")
    return path

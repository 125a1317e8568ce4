"""A planner's plan against every solver on every named grid, at the same number of network calls, on fresh noise.

To the ends of the teacher from the same noise, so that chance cancels and the teacher has 0:
  RMS    of the distance, row by row
  SW     the sliced Wasserstein distance of the two sets
  FD     of a run with pictures: the Frechet distance in the features of the classifier that is trained on its data
To the law, where the teacher has a distance of its own, by chance and by what the model has not learned:
  law    SW to as many exact draws of the world; FD to the training data of the run

A row is ahead or behind where the difference to the plan is more than chance: zero is outside of its 95 % interval, by
leaving out one of eight groups at a time.  Rows that draw noise end elsewhere by design, and are left out.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax.assessment.features import data_of, extractor
from diffjax.assessment.run import opened
from diffjax.assessment.sets import scaled
from diffjax.diffusion.grids import GRIDS
from diffjax.diffusion.sampling import row_keys
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.types import Denoise, Process
from diffjax.evaluation import frechet
from diffjax.evaluation.distances import sliced_wasserstein
from diffjax.evaluation.jackknife import reach
from diffjax.evaluation.planner import make_field, plan, rms
from diffjax.evaluation.rollouts import Starts
from diffjax.evaluation.summary import Moments, summarise
from diffjax.testbed.judge import Setting
from diffjax.testbed.worlds import WORLDS

BUDGETS, GROUPS = (5, 8, 10, 15), 8


class Subject(NamedTuple):
    """What plans are made for and judged on."""

    name: str
    denoise: Denoise
    process: Process
    starts: Callable  # (seed, rows) -> Starts
    look: Callable  # samples -> what measures see of them, row by row
    measures: dict[str, Callable]  # (what is seen of the ends, of the teacher's) -> distance


def to_the_flow(directions: int) -> tuple[Callable, dict[str, Callable]]:
    """The sliced Wasserstein distance by so many directions, and measures of (ends, the teacher's ends)."""
    sliced = jax.jit(partial(sliced_wasserstein, directions=directions))
    near = lambda ends, goal: rms(ends["x"], goal["x"], goal["x"])  # noqa: E731
    return sliced, {"RMS": near, "SW": lambda ends, goal: float(sliced(ends["x"], goal["x"]))}


def exact(world: str, schedule: str) -> Subject:
    """A world of the testbed."""
    law, process = WORLDS[world](), Setting("", schedule, "x0", SOLVERS["ddim"]).process
    known = law.denoise(process.schedule)

    def starts(seed, rows):
        return Starts(row_keys(jax.random.key(seed), rows), jnp.zeros((rows, *law.mean.shape), jnp.float32))

    draws = cache(lambda rows: np.asarray(law.draw(jax.random.key(1000), rows)))
    sliced, measures = to_the_flow(16)
    measures["law"] = lambda ends, goal: float(sliced(ends["x"], draws(len(ends["x"]))))
    look = lambda x: {"x": np.asarray(x)}  # noqa: E731
    return Subject(f"{world}, {schedule}", lambda x, t, c: known(x, t, c), process, starts, look, measures)


def learned(workdir: str) -> Subject:
    """A run with pictures, its classes in turn."""
    run = opened(workdir)
    experiment, source = run.experiment, run.experiment.source
    network = extractor({"name": "classifier"}, data_of(experiment), run.folder / "features")
    law = summarise((network.apply(x) for x, _ in scaled(source, network.range, batch=1000)), groups=1).whole

    def starts(seed, rows):
        label = jnp.arange(rows, dtype=jnp.int32) % source.classes if source.classes else None
        return Starts(row_keys(jax.random.key(seed), rows), jnp.zeros((rows, *source.shape), jnp.float32), label)

    measures = to_the_flow(64)[1] | {
        "FD": lambda ends, goal: frechet.distance(moments(ends["features"]), moments(goal["features"])),
        "law": lambda ends, goal: frechet.distance(moments(ends["features"]), law),
    }
    return Subject(
        f"run {Path(workdir).name}", lambda x, t, c: experiment.denoise(run.model.params, x, t, c), experiment.fixed,
        starts, lambda x: {"x": np.asarray(x), "features": network.apply(x)[0]}, measures,
    )  # fmt: skip


def moments(features: np.ndarray) -> Moments:
    return summarise([(features, None)], groups=1).whole


def judged(subject: Subject, seen: dict, goal: dict) -> dict[str, np.ndarray]:
    """Every measure of all rows, and without each of the groups."""
    group = np.arange(len(seen["x"])) * GROUPS // len(seen["x"])
    parts = [np.full(len(group), True), *(group != g for g in range(GROUPS))]
    pairs = [[{key: value[part] for key, value in side.items()} for side in (seen, goal)] for part in parts]
    return {name: np.asarray([measure(*pair) for pair in pairs]) for name, measure in subject.measures.items()}


def verdict(mine: np.ndarray, other: np.ndarray) -> int:
    """1: the other is farther than the plan, -1: nearer, 0: chance says no less."""
    gaps = other - mine
    return int(np.sign(gaps[0]) * (abs(gaps[0]) > reach(gaps[1:].tolist())))


def against(subject: Subject, field: Any, budget: int, fresh: Starts, top: int | None) -> dict[str, Any]:
    """The plan and the named grids with their measures on fresh starts, and those of the teacher."""
    rows = plan(field, budget, tqdm)
    fixed = [row for row in rows if row.grid in GRIDS][:top]
    goal = subject.look(field.ends(field.teacher, fresh)[0])

    def measured(row):
        (walk,) = field.of(row).walks(row.times[None])
        found = judged(subject, subject.look(field.ends(walk, fresh)[0]), goal)
        return {"rule": row.rule, "grid": row.grid, "calls": row.calls, "found": found}

    mine = measured(rows[0]) | {"times": rows[0].times}
    others = [measured(row) for row in tqdm(fixed, desc=f"{budget} calls: fresh noise") if np.isfinite(row.error)]
    for row in others:
        row["verdict"] = {name: verdict(mine["found"][name], row["found"][name]) for name in subject.measures}
    return {
        "subject": subject.name, "budget": budget, "plan": mine, "fixed": others, "teacher": judged(subject, goal, goal)
    }  # fmt: skip


def told(one: dict[str, Any]):
    """Lines of Markdown: a row for each measure, and whoever is ahead of the plan."""
    mine, fixed = one["plan"], one["fixed"]
    for name, (value, *_) in mine["found"].items():
        best = min(fixed, key=lambda row: row["found"][name][0])
        least, verdicts = best["found"][name][0], [row["verdict"][name] for row in fixed]
        counts = ", ".join(str(verdicts.count(v)) for v in (1, 0, -1))
        cells = one["subject"], one["budget"], name, f"{value:.4f}", f"{least:.4f}: {best['rule']}, {best['grid']}"
        yield row_of([*cells, f"{least / value:.2f}", counts, f"{one['teacher'][name][0]:.4f}"])
    yield f"\nThe plan: {mine['rule']}, {mine['grid']}; times {', '.join(f'{t:.4f}' for t in mine['times'])}"
    for row in fixed:
        ahead = [f"{name} {row['found'][name][0]:.4f}" for name, v in row["verdict"].items() if v < 0]
        if ahead:
            yield f"Ahead: {row['rule']}, {row['grid']}, {row['calls']} calls: {', '.join(ahead)}"


def row_of(cells: Iterable) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main(argv):
    parser = argparse.ArgumentParser(prog="python -m bench plan", description=__doc__)
    parser.add_argument("--workdir", help="a run, in place of the exact world")
    parser.add_argument("--schedule", default="cosine", help="of the mixture (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="to plan on (default: 4096 of the mixture, 64 of a run)")
    parser.add_argument("--fresh", type=int, help="to judge on (default: 16384 of the mixture, 1000 of a run)")
    parser.add_argument("--calls", default=",".join(map(str, BUDGETS)), help="budgets (default: %(default)s)")
    parser.add_argument("--top", type=int, help="only the best named grids, by the planner's rows (default: all)")
    parser.add_argument("--out", type=Path, help="a JSON file of all rows, for each budget a line")
    args = parser.parse_args(argv)
    subject = learned(args.workdir) if args.workdir else exact("mixture", args.schedule)
    rows, fresh = (64, 1000) if args.workdir else (4096, 16384)
    budgets, starts = [int(b) for b in args.calls.split(",")], subject.starts(0, args.rows or rows)
    field = make_field(subject.denoise, subject.process, starts, most=max(budgets))
    heads = "model", "calls", "measure", "plan", "best named grid", "ratio", "behind, equal, ahead", "teacher"
    print(row_of(heads), row_of(["---"] * len(heads)), sep="\n")
    for budget in budgets:
        one = against(subject, field, budget, subject.starts(1, args.fresh or fresh), args.top)
        print("\n".join(told(one)), flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(json.dumps(one, default=np.ndarray.tolist) + "\n")

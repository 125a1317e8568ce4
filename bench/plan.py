"""A planner's plan against every solver on every named grid, at the same number of network calls, on fresh noise.

RMS is the distance to where the teacher ends from the same noise.  SW is the sliced Wasserstein distance to the ends of
the teacher from other noise, in the mean over two sets of them; it has a floor, which is what the teacher's own ends
have.  Rows that draw noise end elsewhere by
design, and are left out.  A row is equal within one percent of the RMS.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import diffjax
from diffjax.diffusion.grids import GRIDS
from diffjax.diffusion.sampling import row_keys
from diffjax.diffusion.solvers import SOLVERS
from diffjax.evaluation.distances import sliced_wasserstein
from diffjax.evaluation.planner import make_field, plan, rms
from diffjax.evaluation.rollouts import Starts
from diffjax.testbed.judge import Setting
from diffjax.testbed.worlds import WORLDS

BUDGETS, SAME = (5, 8, 10, 15), 0.01


def exact(world: str, schedule: str, rows: int):
    """(denoise, process, starts of a seed) of a world."""
    law, process = WORLDS[world](), Setting("", schedule, "x0", SOLVERS["ddim"]).process
    known = law.denoise(process.schedule)
    like = jnp.zeros((rows, *law.mean.shape), jnp.float32)
    return lambda x, t, c: known(x, t, c), process, lambda seed: Starts(row_keys(jax.random.key(seed), rows), like)


def learned(workdir: str, rows: int):
    """The same of a run, its classes in turn."""
    model = diffjax.load(workdir)
    experiment = model.experiment
    like, classes = jnp.zeros((rows, *experiment.source.shape)), experiment.source.classes
    label = jnp.arange(rows, dtype=jnp.int32) % classes if classes else None
    return (
        lambda x, t, c: experiment.denoise(model.params, x, t, c),
        experiment.fixed,
        lambda seed: Starts(row_keys(jax.random.key(seed), rows), like, label),
    )


def against(field, budget, fresh, top):
    """(plan, named grids, (wins, ties, losses), SW of the teacher), each row with its RMS and SW on fresh starts."""
    rows = plan(field, budget, tqdm)
    best, fixed = rows[0], [row for row in rows if row.grid in GRIDS][:top]
    goals = [field.ends(field.teacher, starts)[0] for starts in fresh]

    def judged(row):
        (walk,) = field.of(row).walks(row.times[None])
        ends = [field.ends(walk, starts)[0] for starts in fresh]
        sw = np.mean([float(sliced_wasserstein(ends[0], goals[1])), float(sliced_wasserstein(ends[1], goals[0]))])
        far = [rms(x, goal, goal) for x, goal in zip(ends, goals, strict=True)]
        return row, float(np.sqrt(np.mean(np.square(far)))), sw

    mine = judged(best)
    others = [judged(row) for row in tqdm(fixed, desc=f"{budget} calls: fresh noise")]
    others = sorted((o for o in others if np.isfinite(o[2])), key=lambda o: o[1])
    ratios = np.asarray([o[1] / mine[1] for o in others])
    counts = [np.sum(ratios > 1 + SAME), np.sum(abs(ratios - 1) <= SAME), np.sum(ratios < 1 - SAME)]
    floor = float(sliced_wasserstein(goals[0], goals[1]))
    return mine, others, counts, floor


def section(name, budget, mine, others, counts, floor):
    wins, ties, losses = counts
    ahead, closer = others[0][1] / mine[1], min(o[2] for o in others) / mine[2]
    yield f"\n### {name}, {budget} calls\n"
    yield f"Of {len(others)} rows {wins} are behind the plan in RMS, {ties} equal, {losses} ahead.  Best fixed / plan: "
    yield f"RMS {ahead:.2f}, SW {closer:.2f} (SW of the teacher itself: {floor:.4f}).\n"
    yield f"| solver | grid | calls | RMS | SW |\n|{'---|' * 5}"
    for row, far, sw in [mine, *others[:6], *sorted(others, key=lambda o: o[2])[:2]]:
        which = "**plan**: " if row is mine[0] else ""
        yield f"| {row.rule} | {which}{row.grid} | {row.calls} | {far:.4f} | {sw:.4f} |"
    yield f"\nTimes: {', '.join(f'{t:.4f}' for t in mine[0].times)}"


def main(argv):
    parser = argparse.ArgumentParser(prog="python -m bench plan", description=__doc__)
    parser.add_argument("--workdir", help="a run, in place of the exact world")
    parser.add_argument("--schedule", default="cosine", help="of the mixture (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="trajectories (default: 4096 of the mixture, 96 of a run)")
    parser.add_argument("--calls", default=",".join(map(str, BUDGETS)), help="budgets (default: %(default)s)")
    parser.add_argument("--top", type=int, help="only the best named grids, by the planner's rows (default: all)")
    parser.add_argument("--out", type=Path, help="a Markdown file that is added to")
    args = parser.parse_args(argv)
    rows, budgets = args.rows or (96 if args.workdir else 4096), [int(b) for b in args.calls.split(",")]
    denoise, process, starts = learned(args.workdir, rows) if args.workdir else exact("mixture", args.schedule, rows)
    name = f"run {Path(args.workdir).name}" if args.workdir else f"mixture, {args.schedule}"
    field = make_field(denoise, process, starts(0), most=max(budgets))
    for budget in budgets:
        text = "\n".join(section(name, budget, *against(field, budget, [starts(1), starts(2)], args.top)))
        print(text, flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(text + "\n")

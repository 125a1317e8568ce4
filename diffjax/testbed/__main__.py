"""Judge solvers where the truth is known: distance to an exact law against network calls, orders, and pictures of both.

    python -m diffjax.testbed --solver all --world mixture --nfe 5,8,10,20,50
    python -m diffjax.testbed --solver mypackage:my_solver,dpmpp_2m --schedule edm --grid rho --out runs/testbed

A solver of your own is a function `process -> Solver` (docs/adding.md).  Worlds are laws of data with exact denoisers:
what is seen is the solver's error, and nothing else.  In --out: table.txt, table.json and distance.png.
"""

import argparse
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from diffjax.diffusion.grids import GRIDS
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS
from diffjax.errors import InputError, exit_on_input_error, unknown
from diffjax.evaluation.distances import DISTANCES, floor

from .judge import Judgement, Setting, judge
from .worlds import WORLDS


def table(judgements: Sequence[Judgement], nfe: Sequence[int], *, band: tuple[float, float], tolerance: float) -> str:
    """The judgements as text, best first at the middle of the budgets."""
    head = [
        "solver",
        "schedule",
        "prediction",
        *(f"{calls} calls" for calls in nfe),
        "order",
        f"first <= {tolerance:.3g}",
    ]
    middle = nfe[len(nfe) // 2]
    ranked = sorted(judgements, key=lambda j: (bool(j.refused), j.distances.get(middle) or np.inf))
    lines = [head]
    for j in ranked:
        shown = ["-" if j.distances.get(calls) is None else f"{j.distances[calls]:.4f}" for calls in nfe]
        tail = ["-" if j.order is None else f"{j.order:.2f}", str(j.first_within(tolerance) or "-")]
        lines.append([j.solver, j.schedule, j.prediction, *([f"refused: {j.refused}"] if j.refused else shown + tail)])
    widths = [max(len(line[i]) for line in lines if len(line) == len(head)) for i in range(len(head))]
    text = "\n".join(
        "  ".join(f"{cell:{width}s}" for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )
    chance = f"{band[0]:.4f} to {band[1]:.4f} (5 % to 95 % of the distance between two draws of the law)"
    return f"{text}\nchance alone: {chance}"


def plot(judgements: Sequence[Judgement], path: Path, *, band: tuple[float, float], distance: str) -> None:
    """Distance against calls, a panel for every schedule; the best six of each are named, the others grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    schedules = list(dict.fromkeys(j.schedule for j in judgements if not j.refused))
    figure, axes = plt.subplots(1, len(schedules), figsize=(4.6 * len(schedules), 4.2), sharey=True, squeeze=False)
    for axis, schedule in zip(axes[0], schedules, strict=True):
        here = [j for j in judgements if j.schedule == schedule and not j.refused]
        mean = lambda j: np.mean([np.log(d) for d in j.distances.values() if d] or [np.inf])  # noqa: E731
        best = sorted(here, key=mean)[:6]
        for j in sorted(here, key=lambda j: j in best):
            points = [(calls, max(d, 1e-12)) for calls, d in j.distances.items() if d is not None]
            style = (
                {"label": j.solver, "lw": 1.6, "marker": "o", "ms": 3} if j in best else {"color": "0.85", "lw": 0.8}
            )
            axis.plot(*zip(*points, strict=True), **style)
        axis.axhspan(*band, color="tab:green", alpha=0.15, lw=0, label="chance alone")
        axis.set(title=schedule, xlabel="network calls", xscale="log", yscale="log")
        calls = sorted({calls for j in here for calls in j.distances})
        axis.set_xticks(calls, [str(number) for number in calls])
        axis.set_xticks([], minor=True)
        axis.legend(fontsize=7, frameon=False)
    axes[0, 0].set_ylabel(distance.replace("_", " ") + " to the exact law")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def chosen(table: Mapping[str, Callable], kind: str, names: str) -> dict[str, Callable]:
    """The rows that a comma-separated list names; `all`, or mypackage:my_row for one of the user's own."""
    if names == "all":
        return dict(table)
    rows = {}
    for name in names.split(","):
        module, _, attribute = name.partition(":")
        if attribute:
            try:
                rows[name] = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise InputError(f"cannot find {kind} {name}: {error}; give it as package.module:function") from error
        elif name in table:
            rows[name] = table[name]
        else:
            raise unknown(kind, name, table)
    return rows


def _named(table: Mapping[str, Callable], kind: str, name: str) -> Callable:
    if name not in table:
        raise unknown(kind, name, table)
    return table[name]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffjax.testbed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--solver", default="all", help="names, mypackage:my_solver, or all (default: all)")
    parser.add_argument("--schedule", default="linear,cosine,edm,flow", help="names or all (default: %(default)s)")
    parser.add_argument("--prediction", default="x0", help="names or all; exact ones differ by rounding (default: x0)")
    parser.add_argument("--world", default="mixture", help=f"{', '.join(WORLDS)} (default: mixture)")
    parser.add_argument("--grid", default="uniform", help=f"{', '.join(GRIDS)} (default: uniform)")
    parser.add_argument("--nfe", default="5,8,10,20,50", help="numbers of network calls (default: %(default)s)")
    parser.add_argument(
        "--distance", default="sliced_wasserstein", help=f"{' or '.join(DISTANCES)} (default: %(default)s)"
    )
    parser.add_argument("--num", type=int, default=4096, help="samples (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, help="a distance to reach (default: twice what chance leaves)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", default="runs/testbed", help="folder for the table and the picture (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    jax.config.update("jax_enable_x64", True)  # so that what is seen is the solver's error and not rounding
    with exit_on_input_error():
        try:
            nfe = [int(calls) for calls in args.nfe.split(",")]
        except ValueError:
            raise InputError(f"--nfe must be whole numbers separated by commas; got {args.nfe}") from None
        if min(nfe) < 1 or args.num < 2:
            raise InputError(f"--nfe must be at least 1 and --num at least 2; got {min(nfe)} and {args.num}")
        world, distance = _named(WORLDS, "world", args.world)(), _named(DISTANCES, "distance", args.distance)
        grid = _named(GRIDS, "grid", args.grid)
        rows = (
            chosen(table, kind, names)
            for table, kind, names in (
                (SOLVERS, "solver", args.solver),
                (SCHEDULES, "schedule", args.schedule),
                (PARAMETERIZATIONS, "prediction", args.prediction),
            )
        )
        solvers, schedules, predictions = rows
        settings = [Setting(s, sch, p, make) for sch in schedules for p in predictions for s, make in solvers.items()]
        band = floor(jax.random.key(args.seed + 1), lambda key: world.draw(key, args.num), distance)
        judgements = [
            judge(setting, world, nfe=nfe, grid=grid, distance=distance, n=args.num, seed=args.seed)
            for setting in tqdm(settings, unit="solver", disable=len(settings) < 4)
        ]
        text = table(judgements, nfe, band=band, tolerance=args.tolerance or 2 * band[1])
        print(text)
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "table.txt").write_text(text + "\n")
        record = {"settings": vars(args), "chance": band, "rows": [j._asdict() for j in judgements]}
        (out / "table.json").write_text(json.dumps(record, indent=1))
        if any(j.distances for j in judgements):
            plot(judgements, out / "distance.png", band=band, distance=args.distance)
        print(f"the table and the picture are in {out}")


if __name__ == "__main__":
    main()

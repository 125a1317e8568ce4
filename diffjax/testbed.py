"""Judge solvers where the truth is known: distance to an exact law against network calls, orders, and pictures of both.

    python -m diffjax.testbed --solver all --world mixture --nfe 5,8,10,20,50
    python -m diffjax.testbed --solver mypackage:my_solver,dpmpp_2m --schedule edm --grid rho --out runs/testbed

A solver of your own is a function `process -> Solver` (docs/adding.md).  Worlds are laws of data with exact denoisers:
what is seen is the solver's error, and nothing else.  In --out: table.txt, table.json and distance.png.
"""

import argparse
import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from tqdm import tqdm

from diffjax.diffusion import analytic
from diffjax.diffusion.brownian import brownian
from diffjax.diffusion.denoiser import denoiser
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.grids import GRIDS, pad
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS, check, from_x0
from diffjax.diffusion.sampling import row_keys, sample
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.types import Denoise, Process, Schedule, Solver
from diffjax.diffusion.weights import WEIGHTS
from diffjax.errors import InputError, exit_on_input_error, unknown
from diffjax.evaluation.distances import DISTANCES, floor

ORDER_STEPS, FINEST = (16, 32, 64), 512


def mixture() -> analytic.World:
    """Five round modes in the plane, of different weights and widths."""
    angles = 2 * jnp.pi * jnp.arange(5) / 5
    means = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1) * 1.5
    widths = jnp.asarray([0.05, 0.1, 0.2, 0.1, 0.3])
    return analytic.mixture(means, jnp.square(widths)[:, None] + jnp.zeros((5, 2)), jnp.asarray([3.0, 1, 2, 1, 3]))


def correlated() -> analytic.World:
    """A Gaussian in eight dimensions, with standard deviations from 1 to 0.05 along axes of its own."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    return analytic.correlated(jnp.linspace(-1, 1, 8), jnp.asarray((basis * np.geomspace(1, 0.0025, 8)) @ basis.T))


def low_rank() -> analytic.World:
    """A Gaussian on 16 x 16 x 3 elements: ten smooth patterns and a little noise."""
    phases = np.linspace(0, np.pi, 16)
    waves = [np.cos(i * phases)[:, None] * np.cos(j * phases)[None] for i in range(4) for j in range(4) if i + j < 4]
    colours = np.random.default_rng(1).normal(size=(len(waves), 3))
    factors = 0.4 * np.stack(waves)[..., None] * colours[:, None, None, :]
    return analytic.low_rank(jnp.zeros((16, 16, 3)), jnp.asarray(factors), 1e-4)


def empirical() -> analytic.World:
    """200 points on a spiral: a data set learned by heart."""
    r = np.linspace(0.2, 1.5, 200)
    return analytic.empirical(jnp.asarray(np.stack([r * np.cos(5 * r), r * np.sin(5 * r)], axis=1)))


def point() -> analytic.World:
    """One point in the plane."""
    return analytic.point(jnp.asarray([2.0, -3.0]))


WORLDS = {row.__name__: row for row in (mixture, correlated, low_rank, empirical, point)}


class Setting(NamedTuple):
    """What is judged: a solver, by a function of the process, on a schedule and with a prediction."""

    solver: str
    schedule: str
    prediction: str
    make: Callable

    @property
    def process(self) -> Process:
        return gaussian(SCHEDULES[self.schedule](), PARAMETERIZATIONS[self.prediction](), WEIGHTS["x0"]())


class Judgement(NamedTuple):
    """A row of the table: the distance to the law for each number of calls, or why there is none."""

    solver: str
    schedule: str
    prediction: str
    distances: dict[int, float | None]  # None: even one step needs more calls
    order: float | None  # None: the error is too small to have one
    refused: str = ""

    def first_within(self, tolerance: float) -> int | None:
        """The least number of calls whose distance is within the tolerance."""
        return next((calls for calls, d in sorted(self.distances.items()) if d is not None and d <= tolerance), None)


def judge(
    setting: Setting,
    world: analytic.World,
    *,
    nfe: Sequence[int],
    grid: Callable,
    distance: Callable,
    n: int,
    seed: int = 0,
) -> Judgement:
    """Walk n samples of the exact law at t = 1 down with so many calls, and compare them with n draws of the law."""
    names = setting[:3]
    try:
        process = setting.process
        check(PARAMETERIZATIONS[setting.prediction](), process.schedule)
        solver = setting.make(process)
    except ValueError as error:
        return Judgement(*names, {}, None, str(error))
    denoise = perfect(process, setting.prediction, world)
    start_key, truth_key, walk_key = jax.random.split(jax.random.key(seed), 3)
    x, truth, keys = start(start_key, world, process.schedule, n), world.draw(truth_key, n), row_keys(walk_key, n)
    adaptive = "tolerance" in inspect.signature(setting.make).parameters
    choices = _tolerances(setting, denoise, x[:64]) if adaptive else _grids(solver, process.schedule, grid, max(nfe))
    run = jax.jit(lambda k, ts, x, knobs: sample(k, denoise, setting.make(process, **knobs), ts=ts, x=x, padded=True))
    distances: dict[int, float | None] = dict.fromkeys(nfe)
    for calls in nfe:
        within = [choice for made, choice in choices if made <= calls]  # ever more calls: the last is the best
        if within:
            ts, knobs = within[-1]
            distances[calls] = float(distance(run(keys, ts, x, knobs), truth))
    return Judgement(*names, distances, None if adaptive else _order(solver, process, denoise, x[:64]))


def start(key: PRNGKeyArray, world: analytic.World, schedule: Schedule, n: int) -> Array:
    """x at t = 1, of the exact law: the prior's own error is not blamed on the solver."""
    data_key, noise_key = jax.random.split(key)
    x0, (alpha, sigma) = world.draw(data_key, n), schedule(jnp.ones(()))
    return alpha * x0 + sigma * jax.random.normal(noise_key, x0.shape, x0.dtype)


def perfect(process: Process, prediction: str, world: analytic.World) -> Denoise:
    """The exact denoiser, as a network that answers the truth in the terms of its prediction."""
    exact, row = world.denoise(process.schedule), PARAMETERIZATIONS[prediction]()

    def apply(params, x_in, level, cond, *, key=None):
        xt, t = params
        return from_x0(row, process.schedule, exact(xt, t, None), xt=xt, t=t)

    known = denoiser(process, apply)
    return lambda xt, t, cond=None: known((xt, t), xt, t)


def _grids(solver: Solver, schedule: Schedule, grid: Callable, most: int) -> list[tuple[int, tuple]]:
    """(calls, (grid, no knobs)) for 1 to `most` steps, all padded to one length."""
    padded = jnp.stack([pad(grid(schedule, steps), most + 1) for steps in range(1, most + 1)])
    made = jax.jit(jax.vmap(lambda ts: jnp.sum(solver.plan(ts).moves)))(padded)
    return [(int(calls), (ts, {})) for calls, ts in zip(made, padded, strict=True)]


def _tolerances(setting: Setting, denoise: Denoise, x: Array) -> list[tuple[int, tuple]]:
    """(calls, (grid of one step, tolerance)) of a rule that controls its error, for ever smaller tolerances."""
    made, ts, choices = [], jnp.asarray([1.0, 0.0]), []

    def counting(xt, t, cond):
        jax.debug.callback(lambda: made.append(1))
        return denoise(xt, t, cond)

    run = jax.jit(
        lambda x, tolerance: sample(
            jax.random.key(0), counting, setting.make(setting.process, tolerance=tolerance), ts=ts, x=x
        )
    )
    for tolerance in np.geomspace(1, 1e-8, 25):
        made.clear()
        jax.block_until_ready(run(x, tolerance))
        jax.effects_barrier()
        choices.append((len(made), (ts, {"tolerance": tolerance})))
    return choices


def _order(solver: Solver, process: Process, denoise: Denoise, x: Array) -> float | None:
    """The fitted slope of the error of single trajectories inside (0, 1), all on one Brownian path, against steps."""
    noise, keys = brownian(jax.random.key(1), process.schedule), row_keys(jax.random.key(2), len(x))
    alpha, sigma = process.schedule(jnp.asarray(0.8))
    x = x / jnp.std(x) * jnp.sqrt(alpha**2 + sigma**2)
    run = jax.jit(lambda ts: sample(keys, denoise, solver, ts=ts, x=x, noise=noise, padded=True))
    spaced = {steps: 0.8 - 0.6 * jnp.linspace(0, 1, steps + 1) for steps in (*ORDER_STEPS, FINEST)}
    ends = {steps: run(pad(ts, FINEST + 1)) for steps, ts in spaced.items()}
    errors = [float(jnp.sqrt(jnp.mean((ends[steps] - ends[FINEST]) ** 2))) for steps in ORDER_STEPS]
    return -float(np.polyfit(np.log(ORDER_STEPS), np.log(errors), 1)[0]) if min(errors) > 1e-9 else None


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

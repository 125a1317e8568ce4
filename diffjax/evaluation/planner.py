"""Which solver on which grid makes the most of so many network calls, measured on the network itself.

A teacher of many calls ends where the flow does; whoever starts from the same noise is judged by where he ends.  Every
solver that adds no noise walks every named grid, and the grids that are shortest paths through the teacher's
trajectories (spacing.py).  The best of them are refined on half of the rows; the other half says what was gained, and
chooses.  For a quality that compares laws instead of ends, solvers that add noise are asked too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffjax.diffusion.grids import GRIDS, log_snr
from diffjax.diffusion.schedules import time_of_log_snr
from diffjax.diffusion.solvers import ADAPTIVE, SOLVERS, draws_noise
from diffjax.diffusion.types import Denoise, Process, Schedule

from .distances import energy, sliced_wasserstein
from .rollouts import Starts, Walk, make_ends, make_walks
from .spacing import ROUNDS, refine, shortest, step_errors, trajectories

TEACHER, TEACHER_CALLS, NODES, FINALISTS = "dpmpp_3m", 128, 24, 3
PATHS = "ddim", "dpmpp_2m", "deis"  # whose steps are measured for shortest paths
RATIOS = 0.03, 0.1  # sigma / alpha of the last level above data
SYNONYMS = "euler", "euler_ancestral", "dpm_1"  # of ddim
OPTIONS: Mapping[str, tuple[dict[str, Any], ...]] = {  # beside a row's defaults
    "ddim": ({"eta": 0.5}, {"eta": 1.0}),
    "deis": ({"order": 2},),
    "dpmpp_2m_sde": ({"eta": 0.5},),
    "dpmpp_3m_sde": ({"eta": 0.5},),
    "ipndm": ({"order": 2}, {"order": 3}),
    "unipc": ({"order": 2}, {"taper": 1}),
    "dpmpp_3m": ({"taper": 1},),
}


class Row(NamedTuple):
    """A solver on a grid, and how far from the teacher it ends; `error` is what is chosen by."""

    solver: str
    options: dict[str, Any]
    grid: str
    times: np.ndarray
    calls: int
    error: float

    @property
    def rule(self) -> str:
        return " ".join([self.solver, *(f"{key}={value}" for key, value in self.options.items())])


def rms(ends: Float[Array, "B *S"], same: Float[Array, "B *S"], others: Array) -> float:
    """To the teacher's ends from the same noise."""
    return float(jnp.sqrt(jnp.mean((ends - same) ** 2)))


def law(distance: Callable) -> Callable:
    """To the teacher's ends from other noise: a distance of two laws, which solvers with noise can be judged by."""
    return lambda ends, same, others: float(distance(ends, others))


QUALITIES = {"rms": rms, "sliced_wasserstein": law(sliced_wasserstein), "energy": law(energy)}


class Candidate(NamedTuple):
    """A solver with its options."""

    solver: str
    options: dict[str, Any]
    walks: Callable  # grids -> [Walk, ...]


def candidates(process: Process, *, points: int, noisy: bool) -> Iterator[Candidate]:
    """Every solver for grids of so many points that the process allows; those that draw noise where asked for."""
    for name, row in SOLVERS.items():
        if name in ADAPTIVE or name in SYNONYMS:
            continue
        for options in ({}, *OPTIONS.get(name, ())):
            try:
                solver = row(process, **options)
            except ValueError:  # what the schedule does not allow
                break
            if noisy or not draws_noise(solver):
                yield Candidate(name, options, make_walks(solver, points))


class Planner(NamedTuple):
    """plan(budget) -> rows within it, the best first; ends(row, starts) and teacher(starts) -> samples."""

    plan: Callable[[int], list[Row]]
    ends: Callable[[Row, Starts], Array]
    teacher: Callable[[Starts], Array]


def make_planner(
    denoise: Denoise, process: Process, starts: Starts, *, most: int, quality: str = "rms",
    track: Callable = lambda many, *_: many,
) -> Planner:  # fmt: skip
    """A planner for all budgets up to `most`, with one compiled network.

    starts: an even number of rows, of which the first half is for refining.  track: (iterable, description, total) ->
    iterable, to show progress.  `plan` raises ValueError for budgets that are not in 1..most.
    """
    schedule, half = process.schedule, len(starts.like) // 2
    walked_ends = make_ends(denoise, process, max(most, TEACHER_CALLS))
    (teacher,) = make_walks(SOLVERS[TEACHER](process), TEACHER_CALLS + 1)(
        np.asarray(log_snr(schedule, TEACHER_CALLS))[None]
    )
    walked = walked_ends(teacher, starts)
    goal, seen = walked[0], trajectories(schedule, teacher, walked, NODES)
    field = list(candidates(process, points=most + 1, noisy=quality != "rms"))
    measured = [(c.solver, step_errors(c.walks, seen)) for c in field if c.solver in PATHS and not c.options]

    def of(row: Row) -> Candidate:
        return next(c for c in field if c[:2] == row[:2])

    def judged(candidate: Candidate, grid: str, ts: np.ndarray, walk: Walk) -> Row:
        x = walked_ends(walk, starts)[0]
        error = QUALITIES[quality](x[half:], goal[half:], goal[:half])
        return Row(*candidate[:2], grid, ts, walk.calls, error if np.isfinite(error) else np.inf)

    def tried(candidate: Candidate, budget: int, make: Callable) -> Iterator[Row]:
        steps = _most_steps(candidate, budget)
        made = make(steps) if steps else {}
        walks = candidate.walks(np.stack([*made.values()])) if made else []
        for (grid, ts), walk in zip(made.items(), walks, strict=True):
            if walk.calls <= budget:
                yield judged(candidate, grid, ts, walk)

    def refined(best: Row) -> Iterator[Row]:
        candidate = of(best)

        def residuals(many):
            gaps = [(walked_ends(walk, starts)[0] - goal)[:half] for walk in candidate.walks(many)]
            return np.stack(gaps).astype(np.float64)

        for ts in refine(schedule, residuals, best.times):
            yield judged(candidate, f"{best.grid}, refined", ts, candidate.walks(ts[None])[0])

    def plan(budget: int) -> list[Row]:
        if not 1 <= budget <= most:
            raise ValueError(f"a budget must lie in 1..{most}; got {budget}")
        rows = [
            row
            for candidate in track(field, f"{budget} calls: named grids", len(field))
            for row in tried(candidate, budget, partial(named, schedule))
        ]
        best = first(rows)[: 2 * FINALISTS]
        made = partial(unnamed, schedule, measured, seen.times)
        for row in track(best, f"{budget} calls: shortest paths", len(best)):
            rows += tried(of(row), budget, made)
        for row in first(rows)[:FINALISTS]:
            if not draws_noise(SOLVERS[row.solver](process, **row.options)):
                rows += track(refined(row), f"{budget} calls: {row.rule}", ROUNDS)
        return sorted(rows, key=lambda row: row.error)

    return Planner(
        plan,
        lambda row, starts: walked_ends(of(row).walks(row.times[None])[0], starts)[0],
        lambda starts: walked_ends(teacher, starts)[0],
    )


def _most_steps(candidate: Candidate, budget: int) -> int:
    """The most steps that it makes of so many calls, along equal ones; 0 if there is no such number."""
    even = [np.pad(np.linspace(1, 0, n + 1), (0, budget - n)) for n in range(1, budget + 1)]
    made = [walk.calls for walk in candidate.walks(np.stack(even))]
    return max((n for n, calls in enumerate(made, 1) if calls <= budget), default=0)


def first(rows: Sequence[Row]) -> list[Row]:
    """The best row of every rule, the best rule first."""
    best = {row.rule: row for row in sorted(rows, key=lambda row: -row.error)}
    return sorted(best.values(), key=lambda row: row.error)


def named(schedule: Schedule, steps: int) -> dict[str, np.ndarray]:
    """Every grid of the table with so many steps, by name; those that are equal to an earlier one left out."""
    found: dict[str, np.ndarray] = {}
    for name, grid in GRIDS.items():
        ts = np.asarray(grid(schedule, steps))
        if not any(np.allclose(ts, other, atol=1e-6) for other in found.values()):
            found[name] = ts
    return found


def unnamed(schedule: Schedule, measured: Sequence[tuple], times: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Shortest paths of so many steps, by the errors of every measured solver, and grids even in log-SNR to RATIOS."""
    found = {}
    if steps < len(times):
        found = {f"path of {name}": times[shortest(one, more, steps)] for name, (one, more) in measured}
    for ratio in RATIOS:
        least = float(time_of_log_snr(schedule, jnp.asarray(-2 * np.log(ratio))))
        found[f"log_snr to {ratio}"] = np.asarray(log_snr(schedule, steps, least=least))
    return found

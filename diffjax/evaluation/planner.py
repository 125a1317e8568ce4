"""Which solver on which grid makes the most of so many network calls, measured on the network itself.

A teacher of many calls ends where the flow does; whoever starts from the same noise is judged by where he ends.  Every
solver that adds no noise walks every named grid, and the grids that are shortest paths through the teacher's
trajectories (spacing.py).  The best of them are refined on half of the rows; the other half says what was gained, and
chooses.  For a quality that compares laws instead of ends, solvers that add noise are asked too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
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


class Field(NamedTuple):
    """What all candidates share."""

    process: Process
    candidates: list[Candidate]
    ends: Callable  # (walk, starts) -> (samples, ...), with the one compiled network
    teacher: Walk
    starts: Starts
    goal: Array  # where the teacher ends
    quality: Callable
    named: Callable  # steps -> the grids of the table
    made: Callable  # steps -> grids that were made for this network

    @property
    def half(self) -> int:
        """The rows up to it are for refining, those from it on for judging."""
        return len(self.goal) // 2

    def of(self, row: Row) -> Candidate:
        """The candidate that a row is of."""
        return next(one for one in self.candidates if one[:2] == row[:2])


def make_field(denoise: Denoise, process: Process, starts: Starts, *, most: int, quality: str = "rms") -> Field:
    """The field for all budgets up to `most`; starts: an even number of rows."""
    ends, fine = make_ends(denoise, process, max(most, TEACHER_CALLS)), log_snr(process.schedule, TEACHER_CALLS)
    (teacher,) = make_walks(SOLVERS[TEACHER](process), len(fine))(np.asarray(fine)[None])
    walked = ends(teacher, starts)
    field = list(candidates(process, points=most + 1, noisy=quality != "rms"))
    seen = trajectories(process.schedule, teacher, walked, NODES)
    errors = [(c.solver, step_errors(c.walks, seen)) for c in field if c.solver in PATHS and not c.options]
    fixed, made = partial(named, process.schedule), partial(unnamed, process.schedule, errors, seen.times)
    return Field(process, field, ends, teacher, starts, walked[0], QUALITIES[quality], cache(fixed), cache(made))


def plan(field: Field, budget: int, track: Callable = lambda many, *_: many) -> list[Row]:
    """Rows within so many calls, the best first: that is the plan.

    track: (iterable, description, total) -> iterable, to show progress.  Raises ValueError for a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"a budget must be at least 1 call; got {budget}")
    rows = []
    for one in track(field.candidates, f"{budget} calls: named grids", len(field.candidates)):
        rows += tried(field, one, budget, field.named)
    best = first(rows)[: 2 * FINALISTS]
    for row in track(best, f"{budget} calls: shortest paths", len(best)):
        rows += tried(field, field.of(row), budget, field.made)
    for row in first(rows)[:FINALISTS]:
        if not draws_noise(SOLVERS[row.solver](field.process, **row.options)):
            rows += track(refined(field, row), f"{budget} calls: {row.rule}", ROUNDS)
    return sorted(rows, key=lambda row: row.error)


def tried(field: Field, candidate: Candidate, budget: int, make: Callable) -> Iterator[Row]:
    """The rows of a candidate within a budget, on the grids of make(steps)."""
    steps = _most_steps(candidate, budget)
    grids = make(steps) if steps else {}
    walks = candidate.walks(np.stack([*grids.values()])) if grids else []
    for (grid, ts), walk in zip(grids.items(), walks, strict=True):
        if walk.calls <= budget:
            yield judged(field, candidate, grid, ts, walk)


def judged(field: Field, candidate: Candidate, grid: str, ts: np.ndarray, walk: Walk) -> Row:
    """A row, by the rows that nothing is refined on."""
    x, half = field.ends(walk, field.starts)[0], field.half
    error = field.quality(x[half:], field.goal[half:], field.goal[:half])
    return Row(*candidate[:2], grid, ts, walk.calls, error if np.isfinite(error) else np.inf)


def refined(field: Field, best: Row) -> Iterator[Row]:
    """Rows of ever smaller error on the first half of the starts."""
    candidate = field.of(best)

    def residuals(many):
        gaps = [(field.ends(walk, field.starts)[0] - field.goal)[: field.half] for walk in candidate.walks(many)]
        return np.stack(gaps).astype(np.float64)

    for ts in refine(field.process.schedule, residuals, best.times):
        yield judged(field, candidate, f"{best.grid}, refined", ts, candidate.walks(ts[None])[0])


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
    every = jax.jit(lambda: {name: grid(schedule, steps) for name, grid in GRIDS.items()})()
    found: dict[str, np.ndarray] = {}
    for name in GRIDS:  # in the order of the table, which that of a program's answer is not
        ts = np.asarray(every[name])
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

"""How far the samples of a solver are from an exact law, and how fast that distance falls."""

import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from diffjax.diffusion.brownian import brownian
from diffjax.diffusion.denoiser import denoiser
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.grids import pad
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS, check, from_x0
from diffjax.diffusion.sampling import row_keys, sample
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.types import Denoise, Process, Schedule, Solver
from diffjax.diffusion.weights import WEIGHTS

from .analytic import World

ORDER_STEPS, FINEST = (16, 32, 64), 512


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
    world: World,
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


def start(key: PRNGKeyArray, world: World, schedule: Schedule, n: int) -> Array:
    """x at t = 1, of the exact law: the prior's own error is not blamed on the solver."""
    data_key, noise_key = jax.random.split(key)
    x0, (alpha, sigma) = world.draw(data_key, n), schedule(jnp.ones(()))
    return alpha * x0 + sigma * jax.random.normal(noise_key, x0.shape, x0.dtype)


def perfect(process: Process, prediction: str, world: World) -> Denoise:
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

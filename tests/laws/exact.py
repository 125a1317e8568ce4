"""The laws that every solver must obey on every schedule and with every prediction, as measured distances.

Used by the tests (a covering subset) and by `python -m tests.laws.report` (every combination).
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import grids, sampling
from diffjax.diffusion.denoiser import denoiser
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS, check, from_x0
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS, draws_noise
from diffjax.diffusion.weights import WEIGHTS
from diffjax.testbed import analytic

MEAN, VARIANCE = np.asarray([0.7, -0.4]), np.asarray([0.3, 1.6])
POINT = np.asarray([2.0, -3.0])
ROWS, LONGEST = 4000, 200
# What is allowed: rounding (of predictions that divide by a small alpha); first order in 1/200, four standard errors.
POINT_TOLERANCE, MEAN_TOLERANCE, VARIANCE_TOLERANCE = 1e-5, 0.06, 0.11
LOOSE = {"annealed_langevin": 0.25}  # of the variance: its steps are of finite size, and its levels end before they mix
STEPS = {"rk45": 10}  # where not LONGEST: every step of its grid is many of its own
FEW = 400  # rows, where not ROWS: without noise a Gaussian's moments need no more


def process_of(schedule: str, prediction: str = "x0"):
    return gaussian(SCHEDULES[schedule](), PARAMETERIZATIONS[prediction](), WEIGHTS["x0"]())


def why_refused(case: str, schedule: str, prediction: str = "x0") -> str:
    """The sentence with which an ill-posed combination is refused, or "" for one that is well-posed."""
    try:
        check(PARAMETERIZATIONS[prediction](), SCHEDULES[schedule]())
        SOLVERS[case](process_of(schedule))
    except ValueError as error:
        return str(error)
    return ""


@cache
def noisy(case: str) -> bool:
    return draws_noise(SOLVERS[case](process_of("linear")))


def perfect(process, prediction: str, world):
    """The denoiser made of a network that always answers the truth, in the terms of its prediction."""
    row = PARAMETERIZATIONS[prediction]()

    def apply(params, x_in, level, cond, *, key=None):
        xt, t = params
        return from_x0(row, process.schedule, world.denoise(process.schedule)(xt, t), xt=xt, t=t)

    known = denoiser(process, apply)
    return lambda xt, t, cond: known((xt, t), xt, t, cond)


@cache
def program(case: str, schedule: str, prediction: str):
    """(key, x, ts, mean, variance) -> samples, compiled once for every grid of up to LONGEST steps."""
    process = process_of(schedule, prediction)
    solver = SOLVERS[case](process)

    def run(key, x, ts, mean, variance):
        denoise = perfect(process, prediction, analytic.gaussian(mean, variance))
        return sampling.sample(key, denoise, solver, ts=ts, x=x, padded=True)

    return jax.jit(run)


def start(process, mean, variance, *, rows=ROWS):
    """`rows` samples of the law of N(mean, variance) at t = 1, stratified: no error but the solver's is left."""
    alpha, sigma = process.schedule(jnp.ones(()))
    x = jax.random.normal(jax.random.key(0), (rows, 2))
    return (x - x.mean(0)[None]) / x.std(0)[None] * jnp.sqrt(alpha**2 * variance + sigma**2)[None] + alpha * mean[None]


def sampled(case, schedule, prediction, *, steps, mean, variance):
    """Samples of N(mean, variance): ROWS, or FEW where no noise is drawn."""
    x = start(process_of(schedule), mean, variance, rows=ROWS if noisy(case) else FEW)
    ts = grids.pad(grids.grid(steps), LONGEST + 1)
    return program(case, schedule, prediction)(jax.random.key(1), x, ts, jnp.asarray(mean), jnp.asarray(variance))


def point_distance(samples) -> np.ndarray:
    """How far from POINT the farthest of [..., rows, 2] samples ends, in units of the point's size."""
    return np.abs(np.asarray(samples) / POINT - 1).max((-1, -2))


def moment_misses(samples) -> tuple[np.ndarray, np.ndarray]:
    """The errors of the mean, in standard deviations, and of the variance, as a share of it."""
    samples = np.asarray(samples)
    mean, variance = np.abs(samples.mean(-2) - MEAN) / np.sqrt(VARIANCE), np.abs(samples.var(-2) / VARIANCE - 1)
    return mean.max(-1), variance.max(-1)


def point_miss(case, schedule, prediction, *, steps=7) -> float:
    return float(point_distance(sampled(case, schedule, prediction, steps=steps, mean=POINT, variance=0 * POINT)))


def gaussian_miss(case, schedule, prediction) -> tuple[float, float]:
    steps = STEPS.get(case, LONGEST)
    mean, variance = moment_misses(sampled(case, schedule, prediction, steps=steps, mean=MEAN, variance=VARIANCE))
    return float(mean), float(variance)


def graded(n: int, start: float = 0.8, stop: float = 0.2):
    """A grid whose first steps are of size n^-2, so that a rule that begins with a lower order loses nothing by it."""
    return start - (start - stop) * jnp.linspace(0, 1, n + 1) ** 2


def ode_errors(case, schedule, *, counts=(64, 128, 256), grid=graded, **options) -> np.ndarray:
    """The error of a deterministic solver at the end of a grid, against the exact flow of a Gaussian."""
    process, world = process_of(schedule), analytic.gaussian(jnp.asarray(MEAN), jnp.asarray(VARIANCE))
    solver, denoise = SOLVERS[case](process, **options), world.denoise(process.schedule)
    ends = grid(counts[0])[0], grid(counts[0])[-1]
    x = process.schedule(ends[0])[1] * jax.random.normal(jax.random.key(0), (16, 2)) + MEAN[None]
    truth = analytic.gaussian_flow(world, process.schedule, x, t=ends[0], s=ends[1])
    run = jax.jit(lambda x, ts: sampling.sample(jax.random.key(1), denoise, solver, ts=ts, x=x, padded=True))
    grids_ = [grids.pad(grid(n), counts[-1] + 1) for n in counts]
    return np.asarray([float(jnp.abs(run(x, ts) - truth).max()) for ts in grids_])


def weak_errors(case, schedule, *, counts=(32, 64, 128), start=0.8, stop=0.2, **options) -> np.ndarray:
    """The relative error of the variance at the end of a grid, for so many steps, free of sampling error.

    With Gaussian data a linear solver is affine in x and in its noise: the variance is the sum of the squares of the
    responses to each, found by giving every row of one batch a single unit of noise.  One program serves all grids:
    the calls of a padded one that are not made leave their rows at rest.
    """
    process, world = process_of(schedule), analytic.gaussian(jnp.asarray(MEAN[:1]), jnp.asarray(VARIANCE[:1]))
    solver, denoise, errors = SOLVERS[case](process, **options), world.denoise(process.schedule), []
    law = lambda t: [process.schedule(jnp.asarray(t))[0] ** 2 * VARIANCE[0] + process.schedule(jnp.asarray(t))[1] ** 2]  # noqa: E731

    @jax.jit
    def responses(ts):
        starts = solver.plan(ts).start
        x = jnp.zeros((len(starts) + 2, 1)).at[1].set(1)

        def noise(fresh, begin, end, like):
            return jnp.concatenate([jnp.zeros(2), jnp.where(jnp.abs(starts - begin) < 1e-9, 1.0, 0.0)])[:, None]

        y = sampling.sample(jax.random.key(0), denoise, solver, ts=ts, x=x, noise=noise, padded=True)
        return (y[1:, 0] - y[0, 0]) ** 2

    for n in counts:
        response = np.asarray(responses(grids.pad(jnp.linspace(start, stop, n + 1), counts[-1] + 1)))
        errors.append(abs(float((response[0] * law(start)[0] + response[1:].sum()) / law(stop)[0] - 1)))
    return np.asarray(errors)


def order(errors: np.ndarray, counts=(64, 128, 256)) -> float:
    """The fitted slope of the error against the number of steps."""
    return float(-np.polyfit(np.log(counts), np.log(errors), 1)[0])

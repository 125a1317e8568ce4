"""Adaptive Runge-Kutta on the probability-flow ODE, every row with steps of its own, inside the compiled loop.

The rule of Dormand & Prince (1980, RK5(4)7M) steps in the angle w = arctan(sigma / alpha) on y = x / norm, where
norm^2 = alpha^2 + sigma^2.  There every schedule is a part of the quarter circle, and with (c, s) = (cos w, sin w)

    dx = x0_hat d(alpha) + eps_hat d(sigma)          ==>          dy/dw = c eps_hat - s x0_hat = (c y - x0_hat) / s

The difference to the embedded rule of order 4 is the error of a step: where its norm, in units of the tolerance, is at
most 1, the step is taken; the next step's size is in proportion to its power -1/5 (Hairer, Norsett & Wanner, II.4).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from ..schedules import time_of_log_snr
from ..types import Process, Solver, rows
from .linear import Interval, between, intervals, plan_of

# The tableau; its last row is the step itself, so that the last slope of a step is the first of the next.
A = np.zeros((7, 7))
A[1, :1] = 1 / 5
A[2, :2] = 3 / 40, 9 / 40
A[3, :3] = 44 / 45, -56 / 15, 32 / 9
A[4, :4] = 19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729
A[5, :5] = 9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656
A[6, :6] = 35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84
ERROR = A[6] - np.asarray([5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40])


def rk45(process: Process, tolerance: ArrayLike = 1e-4, least: float = 1e-3, most: int = 6000) -> Solver:
    """Order 5, to an absolute and relative local `tolerance`, from each time of the grid to the next.

    Below the time `least` a step is first order, onto x0_hat.  A row that has not arrived after so many calls as `most`
    becomes NaN.  Raises ValueError unless the tolerance is positive.
    """
    if isinstance(tolerance, int | float) and not tolerance > 0:
        raise ValueError(f"tolerance must be positive; got {tolerance}")

    def plan(ts):
        if ts.ndim > 2:
            raise ValueError(f"rk45 takes one grid, or one for each row; got one for each element, of shape {ts.shape}")
        step = intervals(process, ts)
        bottom = jnp.minimum(jnp.maximum(step.s, least), step.t)
        return plan_of(step, (jnp.arctan2(step.sigma_t, step.alpha_t), between(process, bottom, step.s)))

    def step(noise, denoise, x, c, memory):
        start, final = c
        x = _integrate(process, denoise, x, start, final, tolerance=tolerance, most=most)
        keep, pull = final.ddim
        onto = rows(keep, x) * x + rows(pull, x) * denoise(x, final.t)
        return jnp.where(rows(final.t > final.s, x), onto, x), memory

    return Solver(plan, lambda x: (), step)


ADAPTIVE = {"rk45": rk45}


def _integrate(
    process: Process, denoise: Callable, x: Array, start: Array, final: Interval, *, tolerance: ArrayLike, most: int
) -> Array:
    """x at the angle `start`, followed to the time final.t; one call of the network in the loop."""
    angle = jnp.broadcast_to(start, x.shape[:1])
    stop = jnp.broadcast_to(jnp.arctan2(final.sigma_t, final.alpha_t), x.shape[:1])

    def at(angle):
        t = time_of_log_snr(process.schedule, -2 * jnp.log(jnp.tan(angle)))
        alpha, sigma = process.schedule(t)
        return t, rows(alpha, x), rows(sigma, x), rows(jnp.sqrt(alpha**2 + sigma**2), x)

    def unfinished(state):
        calls, _, angle, *_ = state
        return (calls < most) & jnp.any(angle > stop)

    def call(state):
        calls, stage, angle, h, y, slopes = state
        weights = jnp.asarray(A, x.dtype)[stage]
        there = y + rows(h, y) * jnp.tensordot(weights, slopes, 1)
        t, alpha, sigma, norm = at(angle + h * jnp.sum(weights))
        slopes = slopes.at[stage].set((alpha * there - norm * denoise(norm * there, t)) / sigma)
        error = rows(h, y) * jnp.tensordot(jnp.asarray(ERROR, x.dtype), slopes, 1)
        error = error / (tolerance * (1 + jnp.maximum(jnp.abs(y), jnp.abs(there))))
        error = jnp.sqrt(jnp.mean(jnp.square(error.reshape(len(y), -1)), axis=1))
        judged = stage == 6
        taken = judged & (error <= 1) & (angle > stop)
        angle = jnp.where(taken, jnp.maximum(angle + h, stop), angle)
        y = jnp.where(rows(taken, y), there, y)
        first = jnp.where(rows(taken, y), slopes[6], slopes[0])
        grown = h * jnp.clip(0.9 * jnp.maximum(error, 1e-8) ** -0.2, 0.2, 5)
        h = jnp.maximum(jnp.where(judged, grown, h), stop - angle)  # h < 0: not beyond the end
        return calls + 1, jnp.where(judged, 1, stage + 1), angle, h, y, slopes.at[0].set(first)

    state = (0, 0, angle, 0.1 * (stop - angle), x / at(angle)[-1], jnp.zeros((7, *x.shape), x.dtype))
    _, _, angle, _, y, _ = jax.lax.while_loop(unfinished, call, state)
    return jnp.where(rows(angle <= stop, x), at(stop)[-1] * y, jnp.nan)

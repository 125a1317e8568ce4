"""Single-step solvers: several calls a step, nothing remembered from the step before.

    heun                    the trapezoidal rule in alpha and sigma; churn adds noise before   Karras et al. 2022
    restart                 heun, and an interval walked several times, noise in between       Xu et al. 2023
    dpm_2, dpm_3            exponential Runge-Kutta in lambda on eps_hat                       Lu et al. 2022a
    dpmpp_2s, dpmpp_3s      the same on x0_hat                                                 Lu et al. 2022b
    dpmpp_sde, seeds_2      the same on the SDE, on x0_hat and on eps_hat       Gonzalez et al. 2023

Rules are linear functions of (base, x, first, x0): x and x0_hat where the step began, and x and x0_hat here.  Every
step to s = 0 is the first-order one, onto x0_hat.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ..gaussian import half_log_snr, posterior
from ..schedules import PURE_NOISE, time_of_log_snr
from ..types import Plan, Process, Solver
from .linear import Interval, between, intervals, lagrange, midpoint, of_data, of_noise, staged, stages


def heun(
    process: Process, churn: ArrayLike = 0.0, churn_low: float = 0.0, churn_high: float = math.inf, noise: float = 1.0
) -> Solver:
    """Second order on the ODE; with churn, EDM's stochastic sampler (Karras et al. 2022, algorithms 1 and 2).

    churn is S_churn: before each step whose sigma / alpha lies in [churn_low, churn_high], this is raised by a factor
    1 + min(churn / steps, sqrt(2) - 1), with noise of standard deviation `noise` times what that takes.  The
    schedule's top is a limit: no x is raised above t = 1.
    """
    known = isinstance(churn, int | float)
    if known and churn < 0:
        raise ValueError(f"churn must be at least 0; got {churn}")

    def plan(ts):
        step = intervals(process, ts)
        if known and churn == 0:
            return _heun(step)
        ratio = step.sigma_t / step.alpha_t
        gamma = jnp.minimum(churn / jnp.sum(step.t > step.s, axis=0, keepdims=True), math.sqrt(2) - 1)
        raised = time_of_log_snr(process.schedule, -2 * jnp.log(ratio * (1 + gamma)))
        churned = (ratio >= churn_low) & (ratio <= churn_high) & (gamma > 0) & (step.t > step.s)
        raised = jnp.where(churned, raised, step.t)
        return _heun(between(process, raised, step.s), before=_upward(process, step.t, raised, noise))

    return staged(plan)


def restart(process: Process, low: float = 0.1, high: float = 0.3, repeats: int = 2, steps: int = 4) -> Solver:
    """Heun; and from the grid's first time at or below `low`, back up to `high` and down again, `repeats` times.

    Noise is added for the way up, the way down has so many `steps` of equal length (Xu et al. 2023, algorithm 1): the
    error of the ODE, contracted as the SDE does.  Raises ValueError unless 0 < low < high <= 1.
    """
    if not 0 < low < high <= 1 or repeats < 1 or steps < 1:
        raise ValueError(
            f"restart needs 0 < low < high <= 1, and at least one repeat and one step; got low={low}, high={high}, "
            f"repeats={repeats}, steps={steps}"
        )

    def plan(ts):
        extra = repeats * steps
        call = jnp.arange(len(ts) - 1 + extra).reshape(-1, *(1,) * (ts.ndim - 1))
        turn = jnp.sum(ts > low, axis=0, keepdims=True)  # where the grid has come down to `low`
        again = (call >= turn) & (call < turn + extra)
        at = jnp.clip(jnp.where(call < turn, call, call - extra), 0, len(ts) - 2)
        bottom = jnp.take_along_axis(ts, turn, axis=0)
        part = (call - turn) % steps / steps
        t = jnp.where(again, high + (bottom - high) * part, jnp.take_along_axis(ts, at, axis=0))
        s = jnp.where(again, high + (bottom - high) * (part + 1 / steps), jnp.take_along_axis(ts, at + 1, axis=0))
        s = jnp.where(again & (part + 1.5 / steps > 1), bottom, s)  # to the last bit
        up = jnp.where(again & (part == 0), bottom, t)
        return _heun(between(process, t, s), before=_upward(process, up, t, 1.0))

    return staged(plan)


def _upward(process: Process, t: Array, higher: Array, noise: ArrayLike) -> tuple[Array, Array]:
    """(lift, std) of the forward step from t up to a noisier time; (1, 0) where they are one."""
    step = between(process, t, higher)
    lift = step.alpha_s / step.alpha_t
    std = noise * jnp.sqrt(jnp.maximum(step.sigma_s**2 - (lift * step.sigma_t) ** 2, 0))
    return jnp.where(higher > t, lift, 1), jnp.where(higher > t, std, 0)


def _heun(step: Interval, before: tuple[Array, Array] | None = None) -> Plan:
    d_alpha, d_sigma = step.alpha_s - step.alpha_t, step.sigma_s - step.sigma_t

    def ahead(base, x, first, x0):
        return base + d_alpha * first + d_sigma * (base - step.alpha_t * first) / step.sigma_t

    def corrected(base, x, first, x0):
        eps_t, eps_s = (base - step.alpha_t * first) / step.sigma_t, (x - step.alpha_s * x0) / step.sigma_s
        return base + 0.5 * d_alpha * (first + x0) + 0.5 * d_sigma * (eps_t + eps_s)

    return stages(step, (step.t, ahead, None), (step.s, corrected, None), before=before)


class Kind(NamedTuple):
    """What a rule takes for constant in a step: the kernel that it integrates, and how it is read off (x, x0_hat)."""

    kernel: Callable  # Interval -> theta -> [steps, ...]
    predicted: Callable  # (alpha, sigma, x, x0) -> m
    where: Callable  # Interval -> where a higher order is well-posed


DATA = Kind(of_data, lambda alpha, sigma, x, x0: x0, lambda step: ~step.last)
# From pure noise eps_hat says nothing of x_0.
NOISE = Kind(
    of_noise,
    lambda alpha, sigma, x, x0: (x - alpha * x0) / sigma,
    lambda step: (step.alpha_t > PURE_NOISE) & ~step.last,
)


def dpm_2(process: Process) -> Solver:
    """DPM-Solver-2: eps_hat at the middle of the step in lambda (Lu et al. 2022a, algorithm 1)."""
    return _two_stages(process, NOISE)


def dpmpp_2s(process: Process) -> Solver:
    """DPM-Solver++(2S): x0_hat at the middle of the step in lambda (Lu et al. 2022b, algorithm 1)."""
    return _two_stages(process, DATA)


def dpm_3(process: Process) -> Solver:
    """DPM-Solver-3: eps_hat at a third and at two thirds of the step in lambda (Lu et al. 2022a, algorithm 2)."""
    return _three_stages(process, NOISE)


def dpmpp_3s(process: Process) -> Solver:
    """DPM-Solver++(3S): x0_hat at a third and at two thirds of the step in lambda (Lu et al. 2022b, appendix B)."""
    return _three_stages(process, DATA)


def _two_stages(process: Process, kind: Kind) -> Solver:
    def plan(ts):
        step = intervals(process, ts)
        node = _node(process, step, 0.5)
        (weight,) = midpoint(kind.kernel(step), [jnp.full_like(step.h, 1 / 2)], [kind.where(step)])
        return stages(step, (step.t, _ddim(node), None), (node.s, _corrected(step, node, kind, weight), None))

    return staged(plan)


def _three_stages(process: Process, kind: Kind) -> Solver:
    def plan(ts):
        step = intervals(process, ts)
        third, thirds = _node(process, step, 1 / 3), _node(process, step, 2 / 3)
        (inner,) = lagrange(kind.kernel(thirds), [jnp.full_like(step.h, 1 / 2)], [kind.where(step)])
        (outer,) = lagrange(kind.kernel(step), [jnp.full_like(step.h, 2 / 3)], [kind.where(step)])
        return stages(
            step,
            (step.t, _ddim(third), None),
            (third.s, _corrected(thirds, third, kind, inner), None),
            (thirds.s, _corrected(step, thirds, kind, outer), None),
        )

    return staged(plan)


def _node(process: Process, step: Interval, share: float) -> Interval:
    """The step from t to a share of the way to s, in lambda."""
    lam = half_log_snr(process.schedule, step.t) + share * step.h
    return between(process, step.t, time_of_log_snr(process.schedule, 2 * lam))


def _ddim(step: Interval) -> Callable:
    keep, pull = step.ddim
    return lambda base, x, first, x0: keep * base + pull * first


def _corrected(step: Interval, node: Interval, kind: Kind, weight: Array) -> Callable:
    """DDIM's step, and the weighted difference of what is predicted at the node and where the step began."""

    def rule(base, x, first, x0):
        there = kind.predicted(node.alpha_s, node.sigma_s, x, x0)
        here = kind.predicted(step.alpha_t, step.sigma_t, base, first)
        return _ddim(step)(base, x, first, x0) + weight * (there - here)

    return rule


def dpmpp_sde(process: Process, eta: ArrayLike = 1.0) -> Solver:
    """DPM-Solver++(SDE): `ddim` with eta to mid-step, then over the whole step with the x0_hat from there.

    The noise of the first half is part of the whole step's, as of one Brownian path (k-diffusion, `sample_dpmpp_sde`).
    """

    def plan(ts):
        step = intervals(process, ts)
        node = _node(process, step, 0.5)

        def ddim(end):
            std = eta * posterior(process.schedule, end.t, end.s)[2]
            keep = jnp.sqrt(jnp.maximum(end.sigma_s**2 - std**2, 0)) / end.sigma_t
            return keep, end.alpha_s - keep * end.alpha_t, std

        (keep, pull, std), (keep_s, pull_s, _) = ddim(node), ddim(step)
        carried = step.sigma_s / node.sigma_s * jnp.exp(-0.5 * step.h)

        def half(base, x, first, x0):
            return keep * base + pull * first

        def whole(base, x, first, x0):
            return keep_s * base + pull_s * x0 + carried * (x - half(base, x, first, x0))

        late = eta * step.sigma_s * jnp.sqrt(-jnp.expm1(-step.h))
        return stages(step, (step.t, half, std), (node.s, whole, late))

    return staged(plan)


def seeds_2(process: Process) -> Solver:
    """SEEDS-2: exponential Runge-Kutta for the SDE on eps_hat (Gonzalez et al. 2023, algorithm 2).

    Its noise grows by e^h in a step: it needs many.  The first step from pure noise, and the last one, are DDIM's.
    """

    def plan(ts):
        step = intervals(process, ts)
        node, begun = _node(process, step, 0.5), NOISE.where(step)
        growth = jnp.expm1(0.5 * step.h)

        def half(base, x, first, x0):
            eps = (base - step.alpha_t * first) / step.sigma_t
            new = node.alpha_s / step.alpha_t * base - 2 * node.sigma_s * growth * eps
            return jnp.where(begun, new, _ddim(node)(base, x, first, x0))

        def whole(base, x, first, x0):
            eps, noise = (x - node.alpha_s * x0) / node.sigma_s, x - half(base, x, first, x0)
            new = step.alpha_s / step.alpha_t * base - 2 * step.sigma_s * jnp.expm1(step.h) * eps
            new = new + step.sigma_s / node.sigma_s * jnp.exp(0.5 * step.h) * noise
            return jnp.where(begun, new, _ddim(step)(base, x, first, x0))

        early, late = (
            jnp.where(begun, sigma * jnp.sqrt(jnp.expm1(step.h)), 0) for sigma in (node.sigma_s, step.sigma_s)
        )
        return stages(step, (step.t, half, early), (node.s, whole, late))

    return staged(plan)


SINGLESTEP = {row.__name__: row for row in (dpm_2, dpm_3, dpmpp_2s, dpmpp_3s, dpmpp_sde, heun, restart, seeds_2)}

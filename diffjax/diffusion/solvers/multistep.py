"""Multistep solvers: one call a step, and what the network said before.

Adams' idea, in the form that is exact for the linear part: a polynomial through the last predictions is integrated
against the kernel of the step (linear.py).  The rows differ in what is predicted and in the clock of the polynomial:

    dpmpp_2m, dpmpp_3m, *_sde     x0_hat, lambda              Lu et al. 2022b; k-diffusion
    unipc                         x0_hat, lambda; and a corrector that uses each call twice       Zhao et al. 2023
    deis                          eps_hat, lambda             Zhang & Chen 2023 (tAB in log rho)
    lms                           eps_hat, sigma / alpha      k-diffusion
    ipndm                         eps_hat, number of steps    Zhang & Chen 2023

The first steps have a shorter past, and so a lower order.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from ..gaussian import half_log_snr
from ..types import Process, Solver, rows
from .linear import Multistep, from_past, happened, intervals, lagrange, midpoint, multistep, of_data, of_noise, plan_of


def dpmpp_2m(process: Process) -> Solver:
    """DPM-Solver++(2M): second order, by the slope of the last two x0_hat (Lu et al. 2022b, algorithm 2)."""
    return _data_multistep(process, midpoint, order=2)


def dpmpp_3m(process: Process, taper: int = 0) -> Solver:
    """DPM-Solver++(3M): third order, by the parabola through three x0_hat (Lu et al. 2022b, appendix).

    taper = 1 lowers the order of the last steps, as reference implementations do where there are few of them.
    """
    return _data_multistep(process, lagrange, order=3, taper=taper)


def dpmpp_2m_sde(process: Process, eta: ArrayLike = 1.0) -> Solver:
    """DPM-Solver++(2M) on the SDE of noise strength sqrt(eta); eta = 0 is dpmpp_2m (from k-diffusion)."""
    return _data_multistep(process, midpoint, order=2, eta=eta)


def dpmpp_3m_sde(process: Process, eta: ArrayLike = 1.0) -> Solver:
    """DPM-Solver++(3M) on the SDE of noise strength sqrt(eta); eta = 0 is dpmpp_3m (from k-diffusion)."""
    return _data_multistep(process, lagrange, order=3, eta=eta)


def _data_multistep(process, weigh, *, order, eta=None, taper=0):
    """x_s = sigma_s/sigma_t e^{-eta h} x + alpha_s (1 + eta) int h e^{-(1 + eta)(1 - theta) h} p(theta) + noise."""

    def plan(ts):
        step = intervals(process, ts)
        keep, pull = step.ddim
        kernel, std = of_data(step), None
        if eta is not None:
            keep = keep * jnp.exp(-eta * step.h)
            pull = step.alpha_s - keep * step.alpha_t
            std = step.sigma_s * jnp.sqrt(-jnp.expm1(-2 * eta * step.h))
            kernel = of_data(step, 1 + eta)
        lam = half_log_snr(process.schedule, ts)
        past = [(from_past(lam[:-1], k) - lam[:-1]) / step.h for k in range(1, order)]
        weights = weigh(kernel, past, [happened(step, k, taper=taper) for k in range(1, order)])
        return plan_of(step, Multistep(step.t, keep, pull, weights, std))

    return multistep(plan, history=order - 1)


def deis(process: Process, order: int = 3) -> Solver:
    """Exponential Adams-Bashforth on eps_hat in lambda (Zhang & Chen 2023, eq. 15)."""
    return _noise_multistep(process, order, lambda step, ts: (half_log_snr(process.schedule, ts), of_noise(step)))


def lms(process: Process, order: int = 4) -> Solver:
    """Adams-Bashforth on eps_hat in sigma / alpha, for whatever grid: the linear multistep rule of k-diffusion."""
    return _noise_multistep(
        process, order, lambda step, ts: (jnp.exp(-half_log_snr(process.schedule, ts)), _evenly(step))
    )


def ipndm(process: Process, order: int = 4) -> Solver:
    """Adams-Bashforth on eps_hat as if all steps were equal: 55, -59, 37, -9 over 24 (Zhang & Chen 2023, section 3)."""
    return _noise_multistep(process, order, lambda step, ts: (_count(ts), _evenly(step)))


def _noise_multistep(process, order, clock_and_kernel):
    """DDIM with eps_hat extrapolated by the polynomial through the last ones in some clock."""
    if order < 1:
        raise ValueError(f"the order of a multistep rule is at least 1; got {order}")

    def plan(ts):
        step = intervals(process, ts)
        clock, kernel = clock_and_kernel(step, ts)
        past = [(from_past(clock[:-1], k) - clock[:-1]) / jnp.diff(clock, axis=0) for k in range(1, order)]
        weights = lagrange(kernel, past, [happened(step, k) for k in range(1, order)])
        return plan_of(step, Multistep(step.t, *step.ddim, weights, level=(step.alpha_t, step.sigma_t)))

    return multistep(plan, history=order - 1)


def _evenly(step):
    """The kernel of eps_hat in sigma / alpha: the weight of eps_hat in DDIM's step, spread evenly."""
    whole = step.sigma_s - step.sigma_t * step.alpha_s / step.alpha_t
    return lambda theta: whole + 0 * theta


def _count(ts):
    return jnp.broadcast_to(jnp.arange(len(ts), dtype=ts.dtype).reshape(-1, *(1,) * (ts.ndim - 1)), ts.shape)


def unipc(process: Process, order: int = 3, taper: int = 0) -> Solver:
    """UniPC, variant B2: multistep in x0_hat and lambda, then corrected by the next call (Zhao et al. 2023, alg. 1-2).

    The corrector costs nothing, for the call at s is the next step's own; it is one order better than the predictor.
    taper = 1 lowers the order of the last steps, as reference implementations do where there are few of them.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"unipc has order 1, 2 or 3; got {order}")

    def plan(ts):
        step = intervals(process, ts)
        lam = half_log_snr(process.schedule, ts)
        nodes = [(from_past(lam[:-1], k) - lam[:-1]) / step.h for k in range(1, order)]
        known = [happened(step, k, taper=taper) for k in range(1, order)]
        ahead = lagrange(of_data(step), nodes, known)
        if order > 1:  # with one past prediction, its slope is taken at mid-step
            slope = midpoint(of_data(step), nodes, known)[0]
            ahead[0] = jnp.where(known[1], ahead[0], slope) if order > 2 else slope
        one, yes = jnp.ones_like(step.h), ~step.last
        back = lagrange(of_data(step), [one, *nodes], [yes, *known])
        alone = midpoint(of_data(step), [one], [yes])[0]  # so is that of the first corrector
        back[0] = jnp.where(known[0], back[0], alone) if order > 1 else alone
        keep, pull, *back = (from_past(a, 1) for a in (*step.ddim, *back))  # of the step that led to t
        begun = jnp.arange(len(step.t)) > 0
        return plan_of(step, (Multistep(step.t, *step.ddim, ahead), Multistep(step.t, keep, pull, back), begun))

    def step(noise, denoise, x, plan, memory):
        c, correct, begun = plan
        x_before, m_before, *past = memory
        m = denoise(x, c.t)
        corrected = rows(correct.keep, x) * x_before + rows(correct.pull, x) * m_before
        for weight, other in zip(correct.weights, (m, *past), strict=True):
            corrected = corrected + rows(weight, x) * (other - m_before)
        x = jnp.where(begun, corrected, x)
        new = rows(c.keep, x) * x + rows(c.pull, x) * m
        for weight, before in zip(c.weights, (m_before, *past), strict=False):
            new = new + rows(weight, x) * (before - m)
        return new, (x, m, m_before, *past)[: 1 + order]

    return Solver(plan, lambda x: (jnp.zeros_like(x),) * (1 + order), step)


MULTISTEP = {row.__name__: row for row in (deis, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde, ipndm, lms, unipc)}

"""Solvers: how to step from noise level t to s < t with a denoiser.

A trajectory of the probability-flow ODE obeys, in any schedule and any clock,

    dx = x0_hat d(alpha) + eps_hat d(sigma),            eps_hat = (x - alpha x0_hat) / sigma

(Song et al. 2021, eq. 13, written in alpha and sigma).  Euler and Heun integrate it in this form: no rates, no singular
end.  DDIM's eta adds the noise of the posterior, from none (the ODE) to all of it (the DDPM chain).  Every rule below
is affine in (x, x0_hat, noise) with coefficients that depend on the grid alone: `plan` makes them, once.
Here lambda = log(alpha / sigma).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .gaussian import posterior
from .schedules import drift_and_diffusion, ends_in_pure_noise, log_snr
from .types import Process, Solver, normal


def ancestral(process: Process) -> Solver:
    """Draw from the posterior with x0_hat for x_0: the DDPM sampler (Ho et al. 2020, algorithm 2); any process."""

    def step(key, denoise, x, plan, memory):
        t, s = plan
        return process.reverse(key, x, denoise(x, t), t, s), memory

    return Solver(_intervals, _remember_nothing, step)


def ddim(process: Process, eta: float = 0.0) -> Solver:
    """Keep the direction of the noise, renew a share eta of it (Song et al. 2021a, eq. 12 and 16).

    eta = 1 is `ancestral`.  Raises ValueError unless 0 <= eta <= 1, when eta is known.
    """
    deterministic = isinstance(eta, int | float) and eta == 0
    if isinstance(eta, int | float) and not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1]; got {eta}")

    def plan(ts):
        t, s = _intervals(ts)
        alpha_t, sigma_t = process.schedule(t)
        alpha_s, sigma_s = process.schedule(s)
        std = eta * posterior(process.schedule, t, s)[2]
        keep = jnp.sqrt(jnp.maximum(sigma_s**2 - std**2, 0)) / sigma_t
        return _Affine(t, keep, alpha_s - keep * alpha_t, std)

    def step(key, denoise, x, c, memory):
        x_s = c.keep * x + c.pull * denoise(x, c.t)
        return (x_s if deterministic else x_s + c.std * normal(key, x)), memory  # a deterministic rule draws no noise

    return Solver(plan, _remember_nothing, step)


def euler(process: Process) -> Solver:
    """First order on the ODE: x + d(alpha) x0_hat + d(sigma) eps_hat.

    The Euler step of EDM, k-diffusion and flow matching alike; algebraically DDIM with eta = 0.
    """

    def step(key, denoise, x, c, memory):
        x0_hat, eps_hat = _data_and_noise(denoise, x, c.t, (c.alpha_t, c.sigma_t))
        return x + (c.alpha_s - c.alpha_t) * x0_hat + (c.sigma_s - c.sigma_t) * eps_hat, memory

    return Solver(lambda ts: _levels(process, ts), _remember_nothing, step)


def heun(process: Process) -> Solver:
    """Second order on the ODE: the trapezoidal rule in alpha and sigma (Karras et al. 2022, algorithm 1).

    Two calls a step.  At s = 0 the noise is gone and eps_hat with it, so the last step falls back to Euler's, as in the
    paper.
    """

    def step(key, denoise, x, c, memory):
        x0_t, eps_t = _data_and_noise(denoise, x, c.t, (c.alpha_t, c.sigma_t))
        d_alpha, d_sigma = c.alpha_s - c.alpha_t, c.sigma_s - c.sigma_t
        there = x + d_alpha * x0_t + d_sigma * eps_t
        x0_s, eps_s = _data_and_noise(denoise, there, c.s, (c.alpha_s, jnp.where(c.s > 0, c.sigma_s, 1)))
        corrected = x + 0.5 * d_alpha * (x0_t + x0_s) + 0.5 * d_sigma * (eps_t + eps_s)
        return jnp.where(c.s > 0, corrected, there), memory

    return Solver(lambda ts: _levels(process, ts), _remember_nothing, step)


def euler_maruyama(process: Process) -> Solver:
    """First order on the reverse SDE, dx = (f x - g^2 score) dt + g dW (Song et al. 2021, eq. 6).

    Raises ValueError if alpha(1) = 0, where f is infinite.
    """
    if ends_in_pure_noise(process.schedule):
        raise ValueError(
            "euler_maruyama needs alpha(1) > 0, for the SDE's drift is infinite where alpha = 0; use ddim with eta=1"
        )

    def plan(ts):
        t, s = _intervals(ts)
        alpha, sigma = process.schedule(t)
        f, g = drift_and_diffusion(process.schedule, t)
        pull = (t - s) * (g / sigma) ** 2  # score = (alpha x0_hat - x) / sigma^2
        return _Affine(t, 1 - (t - s) * f - pull, pull * alpha, g * jnp.sqrt(t - s))

    def step(key, denoise, x, c, memory):
        return c.keep * x + c.pull * denoise(x, c.t) + c.std * normal(key, x), memory

    return Solver(plan, _remember_nothing, step)


def dpmpp_2m(process: Process) -> Solver:
    """DPM-Solver++(2M): second order from one call a step and the last x0_hat (Lu et al. 2022b, algorithm 2).

    x_s = sigma_s/sigma_t x + (alpha_s - alpha_t sigma_s/sigma_t) (x0_hat + c (x0_hat - last)),
    with c = h / (2 h_last) in lambda.  The first step has no last one, and a step to s = 0 has h = inf: both are first
    order, c = 0.
    """

    def plan(ts):
        t, s = _intervals(ts)
        alpha_t, sigma_t = process.schedule(t)
        alpha_s, sigma_s = process.schedule(s)
        keep = sigma_s / sigma_t
        lam = 0.5 * log_snr(process.schedule, ts)
        h = jnp.diff(lam)
        c = jnp.concatenate([jnp.zeros(1, h.dtype), 0.5 * h[1:] / h[:-1]])
        return _Affine(t, keep, alpha_s - keep * alpha_t, jnp.zeros_like(t)), jnp.where(s > 0, c, 0)

    def step(key, denoise, x, plan, last):
        c, slope = plan
        x0_hat = denoise(x, c.t)
        return c.keep * x + c.pull * (x0_hat + slope * (x0_hat - last)), x0_hat

    return Solver(plan, jnp.zeros_like, step)


SOLVERS = {
    "ancestral": ancestral,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "euler_maruyama": euler_maruyama,
    "dpmpp_2m": dpmpp_2m,
}
DETERMINISTIC = ("euler", "heun", "dpmpp_2m")  # rules that never draw noise; ddim is one of them at eta = 0


class _Affine(NamedTuple):
    """x_s = keep x + pull x0_hat + std noise."""

    t: Array
    keep: Array
    pull: Array
    std: Array


class _Levels(NamedTuple):
    """Both ends of a step."""

    t: Array
    s: Array
    alpha_t: Array
    sigma_t: Array
    alpha_s: Array
    sigma_s: Array


def _intervals(ts: Float[Array, "points"]) -> tuple[Array, Array]:
    return ts[:-1], ts[1:]


def _levels(process, ts):
    t, s = _intervals(ts)
    return _Levels(t, s, *process.schedule(t), *process.schedule(s))


def _remember_nothing(x):
    return ()


def _data_and_noise(denoise, x, t, level):
    """(x0_hat, eps_hat) at a point of the trajectory."""
    alpha, sigma = level
    x0_hat = denoise(x, t)
    return x0_hat, (x - alpha * x0_hat) / sigma

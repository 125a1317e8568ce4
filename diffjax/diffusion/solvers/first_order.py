"""First-order solvers: one call a step, nothing remembered.

All of them are x_s = keep x + pull x0_hat + std z.  With a = alpha_t / alpha_s and v = sigma_t^2 - a^2 sigma_s^2 (the
forward step's), score = (alpha_t x0_hat - x) / sigma_t^2, and one knob eta from the ODE (0) to the SDE (1):

    ddim                std = eta times the posterior's; the rest of sigma_s points along eps_hat
    reverse_diffusion   (2 - a) x + (1 + eta^2)/2 v score + eta sqrt(v) z           the forward step, read backwards
    euler_maruyama      x - dt (f x - (1 + eta^2)/2 g^2 score) + eta g sqrt(dt) z
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ..gaussian import posterior
from ..schedules import drift_and_diffusion, ends_in_pure_noise, transition
from ..types import Plan, Process, Solver
from .linear import Interval, Multistep, intervals, multistep, plan_of


def ancestral(process: Process) -> Solver:
    """Draw from the posterior with x0_hat for x_0: the DDPM sampler (Ho et al. 2020, algorithm 2); any process.

    Of Gaussian processes it has the smaller of the two fixed variances, or the learned one.
    """

    def plan(ts):
        t, s = ts[:-1], ts[1:]
        return Plan(t > s, t, s, (t, s))

    def step(noise, denoise, x, plan, memory):
        t, s = plan
        return process.reverse(noise, x, denoise(x, t), t, s), memory

    return Solver(plan, lambda x: (), step)


def ancestral_large(process: Process) -> Solver:
    """`ancestral` with the larger fixed variance, beta of the chain (Ho et al. 2020, section 3.2)."""

    def plan(ts):
        step = intervals(process, ts)
        keep, pull, _ = posterior(process.schedule, step.t, step.s)
        std = jnp.sqrt(transition(process.schedule, step.t, step.s)[1])
        return plan_of(step, Multistep(step.t, keep, pull, std=jnp.where(step.last, 0, std)))

    return multistep(plan)


def ddim(process: Process, eta: ArrayLike = 0.0) -> Solver:
    """Keep the direction of the noise, renew a share eta of it (Song et al. 2021a, eq. 12 and 16).

    eta = 1 is `ancestral`.  Raises ValueError unless 0 <= eta <= 1, when eta is known.
    """
    known = isinstance(eta, int | float)
    if known and not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1]; got {eta}")

    def plan(ts):
        step = intervals(process, ts)
        std = jnp.multiply(eta, posterior(process.schedule, step.t, step.s)[2])
        keep = jnp.sqrt(jnp.maximum(step.sigma_s**2 - std**2, 0)) / step.sigma_t
        pull = step.alpha_s - keep * step.alpha_t
        return plan_of(step, Multistep(step.t, keep, pull, std=None if known and eta == 0 else std))

    return multistep(plan)


def euler(process: Process) -> Solver:
    """Euler's rule in alpha and sigma, x + d(alpha) x0_hat + d(sigma) eps_hat: the "Euler" of EDM, k-diffusion and flow
    matching alike, and algebraically `ddim` without noise (Song et al. 2021a, section 4.3)."""
    return ddim(process)


def euler_ancestral(process: Process, eta: ArrayLike = 1.0) -> Solver:
    """Euler's step to a lower level, then noise up to s: k-diffusion's "Euler a", in algebra `ddim` with noise."""
    return ddim(process, eta)


def dpm_1(process: Process) -> Solver:
    """DPM-Solver-1 (Lu et al. 2022a, eq. 3.7): `ddim` without noise again."""
    return ddim(process)


def euler_maruyama(process: Process, eta: ArrayLike = 1.0) -> Solver:
    """First order on the reverse SDE (eta = 1) or the ODE (eta = 0) in t (Song et al. 2021b, eq. 6 and 13).

    Raises ValueError if alpha(1) = 0, where f is infinite.
    """
    if ends_in_pure_noise(process.schedule):
        raise ValueError(
            "euler_maruyama needs alpha(1) > 0, for the SDE's drift is infinite where alpha = 0; use ddim with eta=1"
        )

    def plan(ts):
        step = intervals(process, ts)
        f, g = drift_and_diffusion(process.schedule, step.t)
        dt = step.t - step.s
        pull = 0.5 * (1 + jnp.square(eta)) * dt * (g / step.sigma_t) ** 2
        rule = ending_on_data(step, 1 - dt * f - pull, pull * step.alpha_t, jnp.multiply(eta, g * jnp.sqrt(dt)))
        return plan_of(step, rule)

    return multistep(plan)


def reverse_diffusion(process: Process, eta: ArrayLike = 1.0) -> Solver:
    """The reverse SDE discretised as the forward chain is (Song et al. 2021b, appendix E, eq. 46)."""

    def plan(ts):
        step = intervals(process, ts)
        variance = transition(process.schedule, step.t, step.s)[1]
        pull = 0.5 * (1 + jnp.square(eta)) * variance / step.sigma_t**2
        keep = 2 - step.alpha_t / step.alpha_s - pull
        return plan_of(step, ending_on_data(step, keep, pull * step.alpha_t, jnp.multiply(eta, jnp.sqrt(variance))))

    return multistep(plan)


FIRST_ORDER = {
    row.__name__: row
    for row in (ancestral, ancestral_large, ddim, dpm_1, euler, euler_ancestral, euler_maruyama, reverse_diffusion)
}


def ending_on_data(step: Interval, keep: Array, pull: Array, std: Array) -> Multistep:
    """The rule, but x0_hat itself where the step ends on data: no noise is left on a sample."""
    keep, pull, std = (jnp.where(step.last, end, a) for a, end in zip((keep, pull, std), (0, 1, 0), strict=True))
    return Multistep(step.t, keep, pull, std=std)

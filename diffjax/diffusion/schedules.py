"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t in [0, 1].

A schedule is one function t -> (alpha, sigma).  Everything else is derived from it here, once for all rows:

    log-SNR           lambda(t) = 2 log(alpha / sigma)                            falls from +inf to its least value
    its inverse       by bisection
    the forward SDE   dx = f x dt + g dW,  f = alpha' / alpha,  g^2 = 2 sigma sigma' - 2 f sigma^2       by autodiff

(Kingma et al. 2021, "Variational Diffusion Models", section 3; Karras et al. 2022, appendix B.)
Time 0 is exactly data: every schedule reads (1, 0) there, so that no sampler needs a special last step.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .types import Schedule


def linear(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """Variance preserving with beta(t) linear in t (Ho et al. 2020; Song et al. 2021, eq. 32-33)."""

    def schedule(t):
        log_alpha = -0.25 * t**2 * (beta_max - beta_min) - 0.5 * t * beta_min
        return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))

    return schedule


def cosine() -> Schedule:
    """Variance preserving on a circle: alpha = cos(pi t / 2) (Nichol & Dhariwal 2021; Salimans & Ho 2022)."""

    def schedule(t):
        # cos by way of sin: rounds to exactly 0 at t = 1, never below
        return jnp.sin(0.5 * jnp.pi * (1 - t)), jnp.sin(0.5 * jnp.pi * t)

    return schedule


def sigmoid(start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """Variance preserving with alpha^2 a sigmoid of t, rescaled to run from 1 to 0 (Jabri et al. 2022, algorithm 1)."""

    def rise(t):
        return jax.nn.sigmoid((t * (end - start) + start) / tau)

    def schedule(t):
        one, zero = jnp.ones_like(t), jnp.zeros_like(t)
        span = rise(one) - rise(zero)
        # sigma^2 and alpha^2 are formed apart: each is exact where it is small
        return jnp.sqrt((rise(one) - rise(t)) / span), jnp.sqrt((rise(t) - rise(zero)) / span)

    return schedule


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Schedule:
    """Variance exploding, sigma geometric in t (Song et al. 2021, eq. 30)."""

    def schedule(t):
        sigma = sigma_min * jnp.exp(t * math.log(sigma_max / sigma_min))
        return jnp.ones_like(t), jnp.where(t > 0, sigma, 0)

    return schedule


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """Variance exploding, sigma^(1/rho) linear in t: a uniform grid in t is EDM's (Karras et al. 2022, eq. 5)."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def schedule(t):
        sigma = (low + t * (high - low)) ** rho
        return jnp.ones_like(t), jnp.where(t > 0, sigma, 0)

    return schedule


def flow() -> Schedule:
    """The straight line from data to noise (Liu et al. 2022; Lipman et al. 2023): alpha = 1 - t, sigma = t."""
    return lambda t: (1 - t, t)


def discrete(beta_start: float = 1e-4, beta_end: float = 0.02, steps: int = 1000) -> Schedule:
    """The DDPM chain (Ho et al. 2020): betas linear in k, alpha^2(k / steps) = prod_{i <= k} (1 - beta_i)."""
    return from_betas(np.linspace(beta_start, beta_end, steps, dtype=np.float64))


def from_betas(betas: np.ndarray) -> Schedule:
    """Any discrete chain as a schedule: exact at t = k / T, log alpha linear in between.

    Raises ValueError unless every beta lies in (0, 1).
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not ((betas > 0) & (betas < 1)).all():
        raise ValueError(f"betas must be one array of numbers strictly between 0 and 1; got shape {betas.shape}")
    knots = np.linspace(0, 1, len(betas) + 1)
    log_alphas = np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-betas))])

    def schedule(t):
        log_alpha = jnp.interp(t, knots.astype(t.dtype), log_alphas.astype(t.dtype))
        return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))

    return schedule


SCHEDULES = {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "ve": ve,
    "edm": edm,
    "flow": flow,
    "discrete": discrete,
}


def rates(schedule: Schedule, t: Float[Array, "*B"]) -> tuple[Array, Array]:
    """The time derivatives (alpha', sigma') at t, each shaped like t."""
    _, slopes = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    return slopes


def log_snr(schedule: Schedule, t: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """lambda(t) = 2 log(alpha / sigma): +inf at t = 0, -inf where alpha = 0."""
    alpha, sigma = schedule(t)
    return 2 * (jnp.log(alpha) - jnp.log(sigma))


def time_of_log_snr(schedule: Schedule, value: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The t in [0, 1] at which log_snr falls through `value`; values out of reach give the nearer end."""

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        above = log_snr(schedule, middle) > value
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    bits = jnp.finfo(value.dtype).nmant + 4  # to the last bit of the number type
    low, high = jax.lax.fori_loop(0, bits, halve, (jnp.zeros_like(value), jnp.ones_like(value)))
    return 0.5 * (low + high)


def drift_and_diffusion(schedule: Schedule, t: Float[Array, "*B"]) -> tuple[Array, Array]:
    """(f, g) of the forward SDE dx = f x dt + g dW whose marginals are the schedule's; singular where alpha = 0."""
    alpha, sigma = schedule(t)
    alpha_rate, sigma_rate = rates(schedule, t)
    f = alpha_rate / alpha
    return f, jnp.sqrt(jnp.maximum(2 * sigma * (sigma_rate - f * sigma), 0))


def ends_in_pure_noise(schedule: Schedule) -> bool:
    """Whether alpha(1) = 0: nothing of the data is left at t = 1, so that x_0 cannot be read off x_1 and eps."""
    alpha, _ = schedule(jnp.ones(()))
    return bool(alpha < 1e-4)

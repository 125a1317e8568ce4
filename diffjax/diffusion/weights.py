"""Loss weights w(t) on |x0_hat - x_0|^2: every loss of the field is one loss under another weight.

With SNR = alpha^2 / sigma^2, the squared error of a prediction F is |x0_hat - x_0|^2 / out^2 (parameterizations.py), so

    x0        1                                         error of x_0                     Ho et al. 2020
    simple    SNR                                       error of eps                     Ho et al. 2020, eq. 14
    snr       SNR + 1                                   error of v on a VP schedule      Salimans & Ho 2022, section 4
    min_snr   min(SNR, gamma)                           easy levels count less           Hang et al. 2023, eq. 7
    velocity  (alpha' - alpha sigma' / sigma)^2         error of dx_t / dt               Lipman et al. 2023
    edm       (sigma^2 + alpha^2 d^2) / (sigma d)^2     error of EDM's F                 Karras et al. 2022, section 5
"""

import jax.numpy as jnp

from .schedules import rates
from .types import Weight


def snr_of(schedule, t):
    """alpha^2 / sigma^2 at t [B]."""
    alpha, sigma = schedule(t)
    return (alpha / sigma) ** 2


def x0() -> Weight:
    """The plain error of x_0."""
    return lambda schedule, t: jnp.ones_like(t)


def simple() -> Weight:
    """The error of eps: DDPM's L_simple."""
    return snr_of


def snr(offset: float = 1.0) -> Weight:
    """SNR + offset; with offset 1 the error of v."""
    return lambda schedule, t: snr_of(schedule, t) + offset


def min_snr(gamma: float = 5.0) -> Weight:
    """SNR clipped at gamma."""
    return lambda schedule, t: jnp.minimum(snr_of(schedule, t), gamma)


def velocity() -> Weight:
    """The error of the velocity dx_t/dt: the flow-matching loss."""

    def weight(schedule, t):
        alpha, sigma = schedule(t)
        alpha_rate, sigma_rate = rates(schedule, t)
        return (alpha_rate - alpha * sigma_rate / sigma) ** 2

    return weight


def edm(data_std: float = 0.5) -> Weight:
    """The error of EDM's unit-variance target."""

    def weight(schedule, t):
        alpha, sigma = schedule(t)
        return (sigma**2 + (alpha * data_std) ** 2) / (sigma * data_std) ** 2

    return weight


WEIGHTS = {"x0": x0, "simple": simple, "snr": snr, "min_snr": min_snr, "velocity": velocity, "edm": edm}

"""What a network predicts, as four coefficients: x0_hat = skip x_t + out F(scale x_t, level).

Any prediction y = a x_0 + b eps, linear in data and noise, is such a row: eliminate eps by x_t = alpha x_0 + sigma eps.
Any-to-any conversion goes through x0_hat, so n rows need no n^2 converters.

    x0        F = x_0                               Ho et al. 2020
    eps       F = eps                               Ho et al. 2020;             ill-posed where alpha = 0
    score     F = -eps / sigma                      Song & Ermon 2019;          ill-posed where alpha = 0
    v         F = alpha eps - sigma x_0             Salimans & Ho 2022          for alpha^2 + sigma^2 = 1
    velocity  F = alpha' x_0 + sigma' eps           Lipman et al. 2023          = dx_t / dt
    edm       unit-variance input and target        Karras et al. 2022, table 1, in x / alpha, sigma / alpha

The level is what the network is told about the noise: t itself, or log(sigma / alpha) / 4 for edm.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .schedules import PURE_NOISE, rates
from .types import Coefficients, Parameterization, Schedule, Time, rows


def x0() -> Parameterization:
    """The clean data itself."""

    def coefficients(schedule, t):
        one = jnp.ones_like(t)
        return Coefficients(skip=0 * one, out=one, scale=one, level=t)

    return coefficients


def eps() -> Parameterization:
    """The noise: x_0 = (x_t - sigma eps) / alpha."""

    def coefficients(schedule, t):
        alpha, sigma = schedule(t)
        return Coefficients(skip=1 / alpha, out=-sigma / alpha, scale=jnp.ones_like(t), level=t)

    return coefficients


def score() -> Parameterization:
    """The score of the noising kernel, grad log N(x_t; alpha x_0, sigma^2): x_0 = (x_t + sigma^2 F) / alpha."""

    def coefficients(schedule, t):
        alpha, sigma = schedule(t)
        return Coefficients(skip=1 / alpha, out=sigma**2 / alpha, scale=jnp.ones_like(t), level=t)

    return coefficients


def v() -> Parameterization:
    """v = alpha eps - sigma x_0; on the circle alpha^2 + sigma^2 = 1, x_0 = alpha x_t - sigma v."""

    def coefficients(schedule, t):
        alpha, sigma = schedule(t)
        norm = alpha**2 + sigma**2
        return Coefficients(skip=alpha / norm, out=-sigma / norm, scale=jnp.ones_like(t), level=t)

    return coefficients


def velocity() -> Parameterization:
    """u = dx_t/dt = alpha' x_0 + sigma' eps (flow matching); on the straight line, eps - x_0."""

    def coefficients(schedule, t):
        alpha, sigma = schedule(t)
        alpha_rate, sigma_rate = rates(schedule, t)
        turn = alpha * sigma_rate - alpha_rate * sigma
        return Coefficients(skip=sigma_rate / turn, out=-sigma / turn, scale=jnp.ones_like(t), level=t)

    return coefficients


def edm(data_std: float = 0.5) -> Parameterization:
    """Preconditioning that keeps input and target at unit variance for data of standard deviation `data_std`."""

    def coefficients(schedule, t):
        alpha, sigma = schedule(t)
        total = jnp.sqrt(sigma**2 + (alpha * data_std) ** 2)
        return Coefficients(
            skip=alpha * data_std**2 / total**2,
            out=sigma * data_std / total,
            scale=1 / total,
            level=0.25 * (jnp.log(sigma) - jnp.log(jnp.maximum(alpha, 1e-4))),
        )

    return coefficients


PARAMETERIZATIONS = {"x0": x0, "eps": eps, "score": score, "v": v, "velocity": velocity, "edm": edm}


def check(parameterization: Parameterization, schedule: Schedule) -> None:
    """Raises ValueError if the pair is ill-posed at t = 1: the answer says nothing of x_0, or is infinite."""
    c = parameterization(schedule, jnp.ones(()))
    if not (abs(c.skip) < 1 / PURE_NOISE and abs(c.out) > PURE_NOISE**2 and jnp.isfinite(c.out)):
        raise ValueError(
            f"this prediction is ill-posed on this schedule, for at t = 1 it means x0_hat = {c.skip:.3g} x + "
            f"{c.out:.3g} F; use parameterization 'v', 'x0' or 'edm', or a schedule with alpha(1) > {PURE_NOISE}"
        )


def to_x0(
    parameterization: Parameterization, schedule: Schedule, raw: Float[Array, "B *S"], *,
    xt: Float[Array, "B *S"], t: Time,
) -> Float[Array, "B *S"]:  # fmt: skip
    """x0_hat [B, *S] from a raw prediction."""
    c = parameterization(schedule, t)
    return rows(c.skip, xt) * xt + rows(c.out, xt) * raw


def from_x0(
    parameterization: Parameterization, schedule: Schedule, x0_hat: Float[Array, "B *S"], *,
    xt: Float[Array, "B *S"], t: Time,
) -> Float[Array, "B *S"]:  # fmt: skip
    """The raw prediction [B, *S] that means x0_hat: the inverse of `to_x0`."""
    c = parameterization(schedule, t)
    return (x0_hat - rows(c.skip, xt) * xt) / rows(c.out, xt)

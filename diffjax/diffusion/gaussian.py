"""Gaussian noise: x_t = alpha(t) x_0 + sigma(t) eps, eps ~ N(0, I).

Undoing it from t to s < t, given the data, is again Gaussian (Ho et al. 2020, eq. 6-7; for any schedule Kingma et al.
2021, appendix A.4).  With a = alpha_t / alpha_s the signal kept between s and t, and v = sigma_t^2 - a^2 sigma_s^2 the
noise added:

    q(x_s | x_t, x_0) = N( a sigma_s^2 / sigma_t^2 x_t + alpha_s v / sigma_t^2 x_0 ,  sigma_s^2 v / sigma_t^2 )
"""

import jax.numpy as jnp
from jaxtyping import Array

from .parameterizations import to_x0
from .types import Parameterization, Process, Schedule, Weight, normal, rows


def posterior(schedule: Schedule, t: Array, s: Array) -> tuple[Array, Array, Array]:
    """(keep, pull, std) of q(x_s | x_t, x_0) = N(keep x_t + pull x_0, std^2); t, s of any one shape, s < t."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    kept = alpha_t / alpha_s
    ratio = sigma_s / sigma_t
    added = jnp.maximum(1 - (kept * ratio) ** 2, 0)  # v / sigma_t^2: in [0, 1] without cancellation of large numbers
    return kept * ratio**2, alpha_s * added, sigma_s * jnp.sqrt(added)


def gaussian(schedule: Schedule, parameterization: Parameterization, weight: Weight) -> Process:
    """The Gaussian process with a network that predicts `parameterization`, trained under `weight`."""

    def prior(key, like, t):
        _, sigma = schedule(t)
        return rows(sigma, like) * normal(key, like)

    def corrupt(key, x0, t):
        alpha, sigma = schedule(t)
        return rows(alpha, x0) * x0 + rows(sigma, x0) * normal(key, x0)

    def prepare(xt, t):
        c = parameterization(schedule, t)
        return rows(c.scale, xt) * xt, c.level

    def estimate(raw, xt, t):
        return to_x0(parameterization, schedule, raw, xt=xt, t=t)

    def loss(x0, xt, t, x0_hat):
        return rows(weight(schedule, t), x0) * (x0_hat - x0) ** 2

    def reverse(key, xt, x0_hat, t, s):
        keep, pull, std = posterior(schedule, t, s)
        return rows(keep, xt) * xt + rows(pull, xt) * x0_hat + rows(std, xt) * normal(key, xt)

    return Process(schedule, prior, corrupt, prepare, estimate, loss, reverse)


PROCESSES = {"gaussian": gaussian}

"""Gaussian noise: x_t = alpha(t) x_0 + sigma(t) eps, eps ~ N(0, I).

Undoing it from t to s < t, given the data, is again Gaussian (Ho et al. 2020, eq. 6-7; for any schedule Kingma et al.
2021, appendix A.4).  With a = alpha_t / alpha_s the signal kept between s and t, and v = sigma_t^2 - a^2 sigma_s^2 the
noise added:

    q(x_s | x_t, x_0) = N( a sigma_s^2 / sigma_t^2 x_t + alpha_s v / sigma_t^2 x_0 ,  sigma_s^2 v / sigma_t^2 )
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .parameterizations import to_x0
from .schedules import log_snr, transition
from .types import Denoise, Parameterization, Process, Schedule, Weight, normal, rows

REACH = 16.0  # the largest |log(alpha / sigma)| that is told apart from infinity: a ratio of 1e7


def half_log_snr(schedule: Schedule, t: Array) -> Array:
    """lambda = log(alpha / sigma), kept within REACH, so that differences of it are finite at both ends of time."""
    return jnp.clip(0.5 * log_snr(schedule, t), -REACH, REACH)


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


class Estimate(NamedTuple):
    """What a network with a learned variance says: x0_hat, and how to mix the two fixed variances."""

    x0: Array
    share: Array  # log variance = share log(large) + (1 - share) log(small)


def learned_variance(
    schedule: Schedule, parameterization: Parameterization, weight: Weight, *, steps: int = 1000, share: float = 1e-3
) -> Process:
    """The Gaussian process whose reverse variance is learned (Nichol & Dhariwal 2021, eq. 15-16).

    The network answers [B, ..., 2 C]: the prediction and, beside it, the mixing of variances in [-1, 1].  Denoisers
    give an Estimate; `gaussian.mean` makes plain ones of them.  The loss is hybrid: the weighted error plus `share`
    times the bound's term in nats, for a chain of so many `steps`, that trains the variance alone.
    """
    plain = gaussian(schedule, parameterization, weight)

    def estimate(raw, xt, t):
        prediction, mixing = jnp.split(raw, 2, axis=-1)
        return Estimate(plain.estimate(prediction, xt, t), 0.5 * (mixing + 1))

    def spread(share, xt, t, s):
        """(keep, pull, log variance, log of the posterior's own variance); onto data both are the large one."""
        keep, pull, std = posterior(schedule, t, s)
        large = jnp.log(transition(schedule, t, s)[1])
        small = jnp.where(s > 0, 2 * jnp.log(jnp.where(s > 0, std, 1)), large)
        large, small = rows(large, xt), rows(small, xt)
        return rows(keep, xt), rows(pull, xt), share * large + (1 - share) * small, small

    def loss(x0, xt, t, x0_hat):
        s = jnp.maximum(t - 1 / steps, 0)
        _, pull, log_variance, log_true = spread(x0_hat.share, xt, t, s)
        miss = (pull * (x0 - jax.lax.stop_gradient(x0_hat.x0))) ** 2
        kl = 0.5 * (log_variance - log_true - 1 + jnp.exp(log_true - log_variance) + miss * jnp.exp(-log_variance))
        likelihood = 0.5 * (jnp.log(2 * jnp.pi) + log_variance + miss * jnp.exp(-log_variance))
        return plain.loss(x0, xt, t, x0_hat.x0) + share * jnp.where(rows(s, xt) > 0, kl, likelihood)

    def reverse(key, xt, x0_hat, t, s):
        keep, pull, log_variance, _ = spread(x0_hat.share, xt, t, s)
        std = jnp.where(rows(s, xt) > 0, jnp.exp(0.5 * log_variance), 0)
        return keep * xt + pull * x0_hat.x0 + std * normal(key, xt)

    return plain._replace(estimate=estimate, loss=loss, reverse=reverse)


def mean(denoise: Callable[..., Estimate]) -> Denoise:
    """The plain denoiser of one that gives an Estimate, for solvers that bring a variance of their own."""
    return lambda xt, t, cond=None: denoise(xt, t, cond).x0


PROCESSES = {"gaussian": gaussian, "learned_variance": learned_variance}

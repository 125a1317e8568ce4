"""Worlds with exact denoisers: data laws p(x_0) whose E[x_0 | x_t] is known in closed form.

For a mixture of Gaussians sum_k w_k N(m_k, diag v_k), x_t is a mixture too, and by Bayes' rule (Karras et al. 2022,
appendix B.3)

    r_k      ~  w_k N(x_t; alpha m_k, alpha^2 v_k + sigma^2)                       responsibilities, summing to 1
    E[x_0 | x_t]  =  sum_k r_k ( m_k + alpha v_k / (alpha^2 v_k + sigma^2) (x_t - alpha m_k) )

One Gaussian has one k; a point mass has v = 0.  With these, samplers are judged apart from any network.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .types import Denoise, Schedule, rows


class World(NamedTuple):
    """A law of data: exact moments, exact draws, and for every schedule the exact denoiser."""

    draw: Callable  # (key, n) -> x0 [n, *S]
    denoise: Callable[[Schedule], Denoise]
    mean: Array  # [*S]
    variance: Array  # [*S]


def mixture(means: Float[Array, "K *S"], variances: Float[Array, "K *S"], weights: Float[Array, "K"]) -> World:
    """A mixture of Gaussians with diagonal covariances, over data of any rank."""
    shape = means.shape[1:]
    m, v = means.reshape(len(means), -1), variances.reshape(len(means), -1)
    log_w = jnp.log(weights / weights.sum())

    def draw(key, n):
        which_key, noise_key = jax.random.split(key)
        which = jax.random.categorical(which_key, log_w, shape=(n,))
        noise = jax.random.normal(noise_key, (n, m.shape[1]), m.dtype)
        return (m[which] + jnp.sqrt(v[which]) * noise).reshape(n, *shape)

    def denoise(schedule):
        def exact(xt, t, cond=None):
            flat = xt.reshape(len(xt), 1, -1)
            alpha, sigma = (rows(level, flat) for level in schedule(t))
            gap = flat - alpha * m[None]
            total = alpha**2 * v[None] + sigma**2
            log_r = log_w[None] - 0.5 * jnp.sum(gap**2 / total + jnp.log(total), axis=-1)
            guesses = m[None] + alpha * v[None] / total * gap
            return jnp.sum(jax.nn.softmax(log_r, axis=-1)[..., None] * guesses, axis=1).reshape(xt.shape)

        return exact

    share = jnp.exp(log_w)[:, None]
    mean = jnp.sum(share * m, axis=0)
    variance = jnp.sum(share * (v + (m - mean[None]) ** 2), axis=0)
    return World(draw, denoise, mean.reshape(shape), variance.reshape(shape))


def gaussian(mean: Float[Array, "*S"], variance: Float[Array, "*S"]) -> World:
    """N(mean, diag variance)."""
    return mixture(mean[None], variance[None], jnp.ones(1, mean.dtype))


def point(value: Float[Array, "*S"]) -> World:
    """All data at one point: every consistent sampler hits it exactly."""
    return gaussian(value, jnp.zeros_like(value))


WORLDS = {"mixture": mixture, "gaussian": gaussian, "point": point}


def gaussian_flow(
    world: World, schedule: Schedule, xt: Float[Array, "B *S"], *, t: Array, s: Array
) -> Float[Array, "B *S"]:
    """The exact end at time s of the probability-flow ODE from xt at time t, when the world is one Gaussian.

    The flow keeps every coordinate's distance from the mean in units of the standard deviation.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    mean, variance = world.mean[None], world.variance[None]
    stretch = jnp.sqrt((alpha_s**2 * variance + sigma_s**2) / (alpha_t**2 * variance + sigma_t**2))
    return alpha_s * mean + stretch * (xt - alpha_t * mean)

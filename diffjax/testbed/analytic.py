"""Worlds with exact denoisers: data laws p(x_0) whose E[x_0 | x_t] is known in closed form.

For a mixture of Gaussians sum_k w_k N(m_k, diag v_k), x_t is a mixture too, and by Bayes' rule (Karras et al. 2022,
appendix B.3)

    r_k      ~  w_k N(x_t; alpha m_k, alpha^2 v_k + sigma^2)                       responsibilities, summing to 1
    E[x_0 | x_t]  =  sum_k r_k ( m_k + alpha v_k / (alpha^2 v_k + sigma^2) (x_t - alpha m_k) )

One Gaussian has one k; a point mass has v = 0; a data set is a mixture of point masses.  A Gaussian of any covariance
has a diagonal one in another basis.  With these, samplers are judged apart from any network.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffjax.diffusion.types import Denoise, Schedule, rows


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


def empirical(data: Float[Array, "N *S"]) -> World:
    """A data set itself, every example with the same weight: the best that a network can do is to repeat it."""
    return mixture(data, jnp.zeros_like(data), jnp.ones(len(data), data.dtype))


def low_rank(mean: Float[Array, "*S"], factors: Float[Array, "R *S"], variance: ArrayLike = 0.0) -> World:
    """N(mean, sum_r f_r f_r^T + variance I): a Gaussian of data of any rank whose coordinates depend on each other.

    In the basis of the factors' singular vectors it is N(., diag): E[x_0 | x_t] shrinks each by
    alpha l / (alpha^2 l + sigma^2), l being l_r + variance along them, and variance across.
    """
    shape, m = mean.shape, mean.reshape(-1)
    flat = factors.reshape(len(factors), -1)
    _, singular, basis = jnp.linalg.svd(flat, full_matrices=False)  # basis [R, D]

    def draw(key, n):
        along, across = jax.random.split(key)
        x = jax.random.normal(along, (n, len(flat)), m.dtype) @ flat
        return (m[None] + x + jnp.sqrt(variance) * jax.random.normal(across, (n, len(m)), m.dtype)).reshape(n, *shape)

    def denoise(schedule):
        def exact(xt, t, cond=None):
            x = xt.reshape(len(xt), -1)
            alpha, sigma = (rows(level, x) for level in schedule(t))
            gap = x - alpha * m[None]
            shrink = lambda eigenvalue: alpha * eigenvalue / (alpha**2 * eigenvalue + sigma**2)  # noqa: E731
            plain = shrink(jnp.asarray(variance, m.dtype))
            along = (gap @ basis.T) * (shrink((singular**2 + variance)[None]) - plain) @ basis
            return (m[None] + plain * gap + along).reshape(xt.shape)

        return exact

    return World(draw, denoise, mean, (jnp.sum(flat**2, axis=0) + variance).reshape(shape))


def correlated(mean: Float[Array, "D"], covariance: Float[Array, "D D"]) -> World:
    """N(mean, covariance), any covariance.  Raises ValueError if it is not symmetric, when it is known."""
    if not isinstance(covariance, Tracer) and not jnp.allclose(covariance, covariance.T):
        raise ValueError("a covariance must be symmetric; got one that differs from its transpose")
    eigenvalues, vectors = jnp.linalg.eigh(covariance)
    return low_rank(mean, jnp.sqrt(jnp.maximum(eigenvalues, 0))[:, None] * vectors.T)


WORLDS = {row.__name__: row for row in (mixture, gaussian, point, empirical, low_rank, correlated)}


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

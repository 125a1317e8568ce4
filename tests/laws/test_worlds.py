"""Exact denoisers against numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import analytic
from diffjax.diffusion.schedules import SCHEDULES


@pytest.mark.parametrize("name", SCHEDULES)
def test_mixture_denoiser_is_the_posterior_mean(name):
    """E[x_0 | x_t] by quadrature over x_0."""
    schedule, t = SCHEDULES[name](), jnp.asarray([0.2, 0.5, 0.8])
    means, variances, weights = np.array([-1.0, 0.5]), np.array([0.3, 0.05]), np.array([0.4, 0.6])
    world = analytic.mixture(jnp.asarray(means)[:, None], jnp.asarray(variances)[:, None], jnp.asarray(weights))
    grid = np.linspace(-6, 6, 40_001)
    density = (weights / np.sqrt(variances) * np.exp(-((grid[:, None] - means) ** 2) / 2 / variances)).sum(1)
    xt = np.array([[0.3], [-0.8], [1.1]])
    for row, at in enumerate(t):
        alpha, sigma = map(float, schedule(at))
        likelihood = np.exp(-((xt[row, 0] - alpha * grid) ** 2) / 2 / sigma**2) * density
        expected = (likelihood * grid).sum() / likelihood.sum()
        got = world.denoise(schedule)(jnp.asarray(xt), t, None)[row, 0]
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_moments_are_those_of_draws():
    world = analytic.mixture(
        jnp.asarray([[[-1.0, 2.0]], [[1.0, 0.0]]]), jnp.asarray([[[0.3, 0.1]], [[0.2, 0.5]]]), jnp.asarray([1.0, 3.0])
    )
    draws = world.draw(jax.random.key(0), 200_000)
    assert draws.shape == (200_000, 1, 2)
    np.testing.assert_allclose(draws.mean(0), world.mean, atol=0.01)
    np.testing.assert_allclose(draws.var(0), world.variance, atol=0.02)


@pytest.mark.parametrize("name", SCHEDULES)
def test_gaussian_flow_solves_the_ode(name):
    """Its time derivative is alpha' x0_hat + sigma' eps_hat, with the exact denoiser."""
    schedule, h, t = SCHEDULES[name](), 1e-5, jnp.asarray(0.50037)
    world = analytic.gaussian(jnp.asarray([0.4]), jnp.asarray([0.7]))
    x = jnp.asarray([[0.9]])
    ahead, behind = (analytic.gaussian_flow(world, schedule, x, t=t, s=t + d) for d in (h, -h))
    (alpha, sigma), slopes = schedule(t), jax.jvp(schedule, (t,), (jnp.ones(()),))[1]
    x0_hat = world.denoise(schedule)(x, t[None], None)
    velocity = slopes[0] * x0_hat + slopes[1] * (x - alpha * x0_hat) / sigma
    np.testing.assert_allclose((ahead - behind) / (2 * h), velocity, rtol=1e-5)

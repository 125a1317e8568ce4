"""Exact denoisers against numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.schedules import SCHEDULES
from diffjax.testbed import analytic


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


COVARIANCE = np.asarray([[1.0, 0.6, 0.1], [0.6, 0.8, -0.2], [0.1, -0.2, 0.5]])


@pytest.mark.parametrize("name", SCHEDULES)
def test_correlated_denoiser_is_the_posterior_mean(name):
    """E[x_0 | x_t] = m + alpha C (alpha^2 C + sigma^2 I)^-1 (x_t - alpha m), by a linear solve."""
    schedule, t = SCHEDULES[name](), jnp.asarray([0.2, 0.9])
    m, xt = np.asarray([0.3, -1.0, 0.5]), np.asarray([[0.3, 0.1, -0.4], [1.0, -2.0, 0.2]])
    got = analytic.correlated(jnp.asarray(m), jnp.asarray(COVARIANCE)).denoise(schedule)(jnp.asarray(xt), t, None)
    for row, at in enumerate(t):
        alpha, sigma = map(float, schedule(at))
        gap = np.linalg.solve(alpha**2 * COVARIANCE + sigma**2 * np.eye(3), xt[row] - alpha * m)
        np.testing.assert_allclose(got[row], m + alpha * COVARIANCE @ gap, rtol=1e-7, atol=1e-9)


def test_low_rank_is_the_gaussian_of_its_covariance():
    """The same denoiser and the same draws' covariance as of sum f f^T + v I, on data of any rank."""
    factors = jax.random.normal(jax.random.key(0), (2, 2, 3))
    mean = jnp.arange(6.0).reshape(2, 3)
    flat = np.asarray(factors.reshape(2, 6))
    covariance = flat.T @ flat + 0.1 * np.eye(6)
    world, dense = analytic.low_rank(mean, factors, 0.1), analytic.correlated(mean.reshape(6), jnp.asarray(covariance))
    schedule, xt, t = SCHEDULES["linear"](), jax.random.normal(jax.random.key(1), (4, 2, 3)), jnp.linspace(0.1, 1, 4)
    one, two = world.denoise(schedule)(xt, t, None), dense.denoise(schedule)(xt.reshape(4, 6), t, None)
    np.testing.assert_allclose(one.reshape(4, 6), two, rtol=1e-7, atol=1e-9)
    draws = world.draw(jax.random.key(2), 100_000).reshape(-1, 6)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.05)
    np.testing.assert_allclose(world.variance.reshape(6), np.diag(covariance), rtol=1e-9)
    np.testing.assert_allclose(dense.draw(jax.random.key(3), 100_000).mean(0), mean.reshape(6), atol=0.03)


def test_the_empirical_world_is_its_data():
    data = jnp.asarray([[0.0, 1.0], [2.0, -1.0], [1.0, 0.5]])
    world, schedule = analytic.empirical(data), SCHEDULES["edm"]()
    draws = np.unique(np.asarray(world.draw(jax.random.key(0), 500)), axis=0)
    np.testing.assert_allclose(draws, np.unique(np.asarray(data), axis=0))
    near = world.denoise(schedule)(data + 1e-3, jnp.full(3, 0.01), None)
    np.testing.assert_allclose(near, data, atol=1e-6)  # close by, the example itself; far away, the mean of all
    np.testing.assert_allclose(
        world.denoise(schedule)(data, jnp.ones(3), None), data.mean(0)[None] + 0 * data, atol=1e-3
    )


def test_a_covariance_must_be_symmetric():
    with pytest.raises(ValueError, match="symmetric"):
        analytic.correlated(jnp.zeros(2), jnp.asarray([[1.0, 0.5], [0.0, 1.0]]))

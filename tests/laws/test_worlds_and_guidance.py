"""Exact denoisers against numerical integration, and guidance against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import analytic, guidance
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


def conditional(xt, t, cond):
    return xt * t[:, None] + cond[:, None]


def test_classifier_free_is_the_extrapolation_of_two_calls():
    xt, t, cond = jnp.arange(6.0).reshape(3, 2), jnp.asarray([0.1, 0.2, 0.3]), jnp.asarray([1, 2, 3])
    for scale in (0.0, 1.0, 2.5, jnp.asarray([0.0, 1.0, 4.0])):
        one = guidance.classifier_free(conditional, 9, scale)(xt, t, cond)
        weak, strong = (lambda x, t, c: conditional(x, t, jnp.full_like(c, 9))), conditional
        two = guidance.extrapolate(weak, strong, scale)(xt, t, cond)
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_scale_one_is_the_condition_and_zero_the_null():
    xt, t, cond = jnp.ones((2, 2)), jnp.asarray([0.1, 0.2]), jnp.asarray([1, 2])
    strong, weak = conditional(xt, t, cond), conditional(xt, t, jnp.asarray([9, 9]))
    np.testing.assert_allclose(guidance.classifier_free(conditional, 9, 1.0)(xt, t, cond), strong)
    np.testing.assert_allclose(guidance.classifier_free(conditional, 9, 0.0)(xt, t, cond), weak)


def test_classifier_free_makes_one_call_of_twice_the_batch():
    sizes = []

    def denoise(xt, t, cond):
        sizes.append((len(xt), len(t), len(cond)))
        return conditional(xt, t, cond)

    guidance.classifier_free(denoise, 9, 2.0)(jnp.ones((3, 2)), jnp.ones(3), jnp.asarray([1, 2, 3]))
    assert sizes == [(6, 6, 6)]


def test_guidance_moves_a_gaussian_as_the_formula_says():
    """Two Gaussian worlds of one width: the guided denoiser is that of the mean extrapolated by the scale."""
    schedule = SCHEDULES["linear"]()
    null, one, far = (analytic.gaussian(jnp.asarray([m]), jnp.asarray([0.5])) for m in (0.0, 1.0, 3.0))
    guided = guidance.extrapolate(null.denoise(schedule), one.denoise(schedule), 3.0)
    xt, t = jnp.asarray([[0.2], [1.0]]), jnp.asarray([0.3, 0.9])
    np.testing.assert_allclose(guided(xt, t, None), far.denoise(schedule)(xt, t, None), rtol=1e-9)

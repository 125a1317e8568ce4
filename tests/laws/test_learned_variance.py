"""The learned reverse variance: between the two fixed ones, trained by the bound's term, and exact on Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import grids, sampling
from diffjax.diffusion.gaussian import Estimate, learned_variance, mean, posterior
from diffjax.diffusion.losses import loss_at
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS, from_x0
from diffjax.diffusion.schedules import SCHEDULES, transition
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.weights import WEIGHTS
from diffjax.testbed import analytic

M, V = 0.7, 0.3


def process_of(name, **options):
    return learned_variance(SCHEDULES[name](), PARAMETERIZATIONS["eps"](), WEIGHTS["simple"](), **options)


def best_share(schedule, t, s):
    """Of N(M, V): the variance of x_s given x_t is the posterior's, and that of x_0 given x_t as it shows in x_s."""
    _, pull, std = posterior(schedule, t, s)
    alpha, sigma = schedule(t)
    variance = std**2 + pull**2 * V * sigma**2 / (alpha**2 * V + sigma**2)
    small, large = 2 * jnp.log(std), jnp.log(transition(schedule, t, s)[1])
    return (jnp.log(variance) - small) / (large - small)


@pytest.mark.parametrize("steps", [3, 10])
@pytest.mark.parametrize("name", ["linear", "discrete"])
def test_gaussian_data_is_hit_in_any_number_of_steps(name, steps):
    """The exact chain is Gaussian, so its variance is all that was missing; neither fixed one is right."""
    process, ts, n = process_of(name), grids.grid(steps, stop=0.1), 40_000
    world = analytic.gaussian(jnp.asarray([M]), jnp.asarray([V]))
    exact = world.denoise(process.schedule)

    def denoise(xt, t, cond=None):
        s = t[0] - 0.9 / steps
        share = best_share(process.schedule, t[0], s)
        return Estimate(exact(xt, t), jnp.full(xt.shape, share))

    alpha, sigma = process.schedule(jnp.ones(()))
    x = alpha * M + jnp.sqrt(alpha**2 * V + sigma**2) * jax.random.normal(jax.random.key(0), (n, 1))
    keys = sampling.row_keys(jax.random.key(1), n)
    ends = {}
    for case, rule in (("ancestral", denoise), ("small", mean(denoise)), ("ancestral_large", mean(denoise))):
        row = SOLVERS["ancestral" if case == "ancestral" else "ddim" if case == "small" else case]
        solver = row(process, **({"eta": 1.0} if case == "small" else {}))
        ends[case] = sampling.sample(keys, rule, solver, ts=ts, x=x)
    alpha, sigma = process.schedule(ts[-1])
    truth = float(alpha**2 * V + sigma**2)
    assert float(ends["ancestral"].var()) == pytest.approx(truth, rel=0.03)
    assert float(ends["ancestral"].mean()) == pytest.approx(float(alpha * M), abs=0.02)
    assert float(ends["small"].var()) < 0.95 * truth < 1.05 * truth < float(ends["ancestral_large"].var())


def test_the_loss_is_least_at_the_true_variance_and_leaves_the_mean_alone():
    process, n, t, share = process_of("linear", steps=10, share=1.0), 200_000, jnp.asarray(0.5), 0.0
    world = analytic.gaussian(jnp.asarray([M]), jnp.asarray([V]))
    x0 = world.draw(jax.random.key(0), n)
    exact = world.denoise(process.schedule)

    def loss(share, shift):
        def denoise(xt, t, cond):
            return Estimate(exact(xt, t) + shift, jnp.broadcast_to(share, xt.shape))

        return loss_at(jax.random.key(1), denoise, process, t=jnp.full(n, t), x0=x0, cond=None).mean()

    best = best_share(process.schedule, t, t - 0.1)
    slope = jax.jit(jax.grad(loss))
    with jax.debug_key_reuse(False):
        assert slope(best - 0.1, 0.0) < 0 < slope(best + 0.1, 0.0)
        assert abs(float(slope(best, 0.0))) < 0.02 * abs(float(slope(best - 0.3, 0.0)))
        # the bound's term does not move the mean: its slope in `shift` is the weighted error's alone
        plain = process_of("linear", steps=10, share=0.0)
        pushed = jax.jit(jax.grad(loss, argnums=1))(share, 0.1)
        process = plain
        np.testing.assert_allclose(jax.jit(jax.grad(loss, argnums=1))(share, 0.1), pushed, rtol=1e-9)


def test_the_networks_answer_is_read_in_two_halves():
    process = process_of("linear")
    x0, xt, t = jnp.ones((2, 3, 4)), jnp.full((2, 3, 4), 0.3), jnp.asarray([0.2, 0.6])
    raw = from_x0(PARAMETERIZATIONS["eps"](), process.schedule, x0, xt=xt, t=t)
    estimate = process.estimate(jnp.concatenate([raw, jnp.full_like(raw, 0.5)], axis=-1), xt, t)
    np.testing.assert_allclose(estimate.x0, x0, rtol=1e-9)
    np.testing.assert_allclose(estimate.share, 0.75)


def test_onto_data_no_noise_is_left_and_the_loss_is_finite():
    process = process_of("linear", steps=10)
    xt, t = jnp.ones((2, 1)), jnp.full(2, 0.05)
    estimate = Estimate(jnp.full((2, 1), 0.7), jnp.full((2, 1), 0.4))
    np.testing.assert_allclose(process.reverse(jax.random.key(0), xt, estimate, t, jnp.zeros(2)), 0.7, rtol=1e-12)
    assert jnp.isfinite(process.loss(jnp.zeros((2, 1)), xt, t, estimate)).all()

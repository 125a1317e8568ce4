"""The Gaussian process, the loss, and the laws of training times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedules
from diffjax.diffusion.denoiser import denoiser
from diffjax.diffusion.gaussian import gaussian, posterior
from diffjax.diffusion.losses import diffusion_loss, loss_at
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.times import TIMES
from diffjax.diffusion.types import fold, normal
from diffjax.diffusion.weights import WEIGHTS
from diffjax.testbed import analytic

each_schedule = pytest.mark.parametrize("name", SCHEDULES)


def process_of(name, prediction="x0", weight="x0"):
    return gaussian(SCHEDULES[name](), PARAMETERIZATIONS[prediction](), WEIGHTS[weight]())


@each_schedule
def test_corruption_has_the_marginal(name):
    process, n = process_of(name), 200_000
    t = jnp.full(n, 0.4)
    alpha, sigma = process.schedule(jnp.asarray(0.4))
    xt = process.corrupt(jax.random.key(0), jnp.full((n, 1), 1.5), t)
    assert float(xt.mean()) == pytest.approx(float(1.5 * alpha), abs=4 * float(sigma) / n**0.5)
    assert float(xt.std()) == pytest.approx(float(sigma), rel=0.01)


@each_schedule
def test_posterior_by_bayes_rule(name):
    """Multiply the densities q(x_t | x_s) q(x_s | x_0) of two Gaussians; complete the square."""
    schedule, t, s = SCHEDULES[name](), jnp.asarray(0.7), jnp.asarray(0.3)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    kept = alpha_t / alpha_s
    added = sigma_t**2 - kept**2 * sigma_s**2
    precision = kept**2 / added + 1 / sigma_s**2
    keep, pull, std = posterior(schedule, t, s)
    np.testing.assert_allclose(std**2, 1 / precision, rtol=1e-7)
    np.testing.assert_allclose(keep, kept / added / precision, rtol=1e-7)
    np.testing.assert_allclose(pull, alpha_s / sigma_s**2 / precision, rtol=1e-7)


@each_schedule
def test_posterior_of_the_chain_keeps_the_marginal(name):
    """x_t ~ q(x_t | x_0), then x_s ~ q(x_s | x_t, x_0), gives x_s ~ q(x_s | x_0): in mean and in variance."""
    schedule, t = SCHEDULES[name](), jnp.linspace(0.1, 1, 9)
    s = t - 0.1
    s = jnp.where(s < 1e-9, 0, s)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    keep, pull, std = posterior(schedule, t, s)
    np.testing.assert_allclose(keep * alpha_t + pull, alpha_s, rtol=1e-9)
    np.testing.assert_allclose(keep**2 * sigma_t**2 + std**2, sigma_s**2, rtol=1e-7, atol=1e-15)


def test_posterior_of_the_ddpm_chain():
    """Ho et al. 2020, eq. 7, from their betas."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    k = np.arange(1, 1000)
    keep, pull, std = posterior(SCHEDULES["discrete"](), jnp.asarray((k + 1) / 1000), jnp.asarray(k / 1000))
    np.testing.assert_allclose(std**2, (1 - bar[k - 1]) / (1 - bar[k]) * betas[k], rtol=1e-6)
    np.testing.assert_allclose(keep, np.sqrt(1 - betas[k]) * (1 - bar[k - 1]) / (1 - bar[k]), rtol=1e-6)
    np.testing.assert_allclose(pull, np.sqrt(bar[k - 1]) * betas[k] / (1 - bar[k]), rtol=1e-6)


@each_schedule
def test_time_zero_reverses_to_the_estimate(name):
    process = process_of(name)
    xt, x0 = jnp.ones((3, 2)), jnp.full((3, 2), -0.7)
    xs = process.reverse(jax.random.key(0), xt, x0, jnp.full(3, 0.2), jnp.zeros(3))
    np.testing.assert_allclose(xs, x0, rtol=1e-12)


@each_schedule
def test_prior_is_the_noise_at_its_time(name):
    process = process_of(name)
    for t in (1.0, 0.6):
        x = process.prior(jax.random.key(0), jnp.zeros((50_000, 2)), jnp.asarray(t))
        assert float(x.std()) == pytest.approx(float(process.schedule(jnp.asarray(t))[1]), rel=0.02)


def test_a_rows_noise_does_not_depend_on_its_batch():
    keys = jax.random.split(jax.random.key(0), 5)
    with jax.debug_key_reuse(False):
        whole, part = normal(keys, jnp.zeros((5, 3))), normal(keys[1:3], jnp.zeros((2, 3)))
    np.testing.assert_array_equal(whole[1:3], part)
    assert len(np.unique(whole)) == 15


@pytest.mark.parametrize("prediction", PARAMETERIZATIONS)
@each_schedule
def test_the_denoiser_undoes_a_perfect_network(prediction, name):
    """A network that answers the truth gives zero loss and the data back, whatever it predicts."""
    process = process_of(name, prediction, "simple")
    x0, t = jax.random.normal(jax.random.key(0), (4, 3)), jnp.asarray([0.1, 0.3, 0.5, 0.9])
    xt = process.corrupt(jax.random.key(1), x0, t)
    c = PARAMETERIZATIONS[prediction]()(process.schedule, t)

    def network(params, x_in, level, cond, *, key=None):
        np.testing.assert_allclose(x_in, c.scale[:, None] * xt)
        return (x0 - c.skip[:, None] * xt) / c.out[:, None]

    np.testing.assert_allclose(denoiser(process, network)({}, xt, t), x0, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "flow", "edm"])
def test_the_loss_of_the_best_denoiser_is_the_posterior_variance(name):
    """E |x0_hat - x_0|^2 of the exact denoiser of N(m, v) is v sigma^2 / (alpha^2 v + sigma^2)."""
    process, n = process_of(name), 100_000
    world = analytic.gaussian(jnp.asarray([0.3]), jnp.asarray([0.8]))
    t = jnp.full(n, 0.3)
    rows = loss_at(
        jax.random.key(1), world.denoise(process.schedule), process, t=t, x0=world.draw(jax.random.key(0), n), cond=None
    )
    alpha, sigma = process.schedule(jnp.asarray(0.3))
    assert rows.shape == (n,)
    assert float(rows.mean()) == pytest.approx(float(0.8 * sigma**2 / (alpha**2 * 0.8 + sigma**2)), rel=0.02)


@pytest.mark.parametrize("law", TIMES)
@each_schedule
def test_training_times_lie_inside(law, name):
    t = TIMES[law](SCHEDULES[name]())(jax.random.key(0), 4096)
    assert t.shape == (4096,) and (t > 0).all() and (t <= 1).all()


@pytest.mark.parametrize("law", ["uniform", "stratified"])
def test_uniform_times_are_uniform(law):
    t = np.sort(TIMES[law](SCHEDULES["linear"]())(jax.random.key(3), 4096))
    distance = np.abs(t - (np.arange(4096) + 0.5) / 4096).max()  # Kolmogorov's
    assert distance < (1.6 / 64 if law == "uniform" else 1 / 4096)


def test_stratified_times_have_one_draw_in_each_stratum():
    t = TIMES["stratified"](SCHEDULES["linear"]())(jax.random.key(3), 64)
    np.testing.assert_array_equal(np.floor(t * 64), np.arange(64))


def test_logit_normal_times():
    t = TIMES["logit_normal"](SCHEDULES["flow"](), 0.5, 0.8)(jax.random.key(0), 100_000)
    logit = np.log(t / (1 - t))
    assert logit.mean() == pytest.approx(0.5, abs=0.02) and logit.std() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("name", ["edm", "linear", "flow"])
def test_log_normal_sigma_whatever_the_schedule(name):
    schedule = SCHEDULES[name]()
    t = TIMES["log_normal_sigma"](schedule, -0.6, 0.9)(jax.random.key(0), 50_000)
    log_ratio = -0.5 * schedules.log_snr(schedule, t)
    assert log_ratio.mean() == pytest.approx(-0.6, abs=0.03) and log_ratio.std() == pytest.approx(0.9, abs=0.03)


def test_the_loss_draws_anew_for_every_key():
    process = process_of("linear", "eps", "simple")
    world = analytic.point(jnp.zeros(2))

    def loss(key):
        draw = TIMES["uniform"](process.schedule)
        return diffusion_loss(key, lambda xt, t, c: xt, process, times=draw, x0=world.draw(key, 8))

    with jax.debug_key_reuse(False):
        first, again, other = loss(jax.random.key(0)), loss(jax.random.key(0)), loss(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_the_loss_of_a_dict_is_the_sum_of_its_parts_means():
    """A process over a dict of arrays of different sizes: no part counts more for having more elements."""
    parts = {"a": process_of("linear", weight="simple"), "b": process_of("edm")}

    def corrupt(key, x0, t):
        return {k: parts[k].corrupt(fold(key, i), x0[k], t) for i, k in enumerate(parts)}

    def loss(x0, xt, t, x0_hat):
        return {k: parts[k].loss(x0[k], xt[k], t, x0_hat[k]) for k in parts}

    both = parts["a"]._replace(corrupt=corrupt, loss=loss)
    x0 = {"a": jax.random.normal(jax.random.key(1), (5, 3, 2)), "b": jax.random.normal(jax.random.key(2), (5, 11))}
    t = jnp.linspace(0.1, 0.9, 5)
    with jax.debug_key_reuse(False):
        got = loss_at(jax.random.key(0), lambda xt, t, cond: xt, both, t=t, x0=x0, cond=None)
        xt = corrupt(jax.random.key(0), x0, t)
    expected = sum(np.mean(np.reshape(part, (5, -1)), axis=1) for part in loss(x0, xt, t, xt).values())
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    drawn = diffusion_loss(jax.random.key(3), lambda xt, t, cond: xt, both, times=lambda key, n: t[:n], x0=x0)
    assert drawn.shape == (5,)


def test_the_loss_takes_levels_for_each_element():
    """With one level per element, the loss of a row is the mean over the losses at those levels."""
    process, x0 = process_of("flow", weight="simple"), jax.random.normal(jax.random.key(1), (4, 3))
    t = jnp.linspace(0.1, 0.9, 12).reshape(4, 3)
    got = loss_at(jax.random.key(0), lambda xt, t, cond: xt, process, t=t, x0=x0, cond=None)
    each = ((1 - t) / t) ** 2 * t**2 * (jax.random.normal(jax.random.key(0), (4, 3)) - x0) ** 2
    np.testing.assert_allclose(got, each.mean(1), rtol=1e-9)


def test_discrete_times_are_those_of_the_chain():
    t = TIMES["discrete"](SCHEDULES["discrete"](), 8)(jax.random.key(0), 40_000)
    values, counts = np.unique(np.asarray(t), return_counts=True)
    np.testing.assert_array_equal(values, np.arange(1, 9) / 8)
    assert np.abs(counts / 5000 - 1).max() < 0.06  # 4 standard errors


@pytest.mark.parametrize("name", SCHEDULES)
def test_log_snr_times_are_uniform_in_log_snr(name):
    schedule, n = SCHEDULES[name](), 4096
    levels = np.sort(schedules.log_snr(schedule, TIMES["log_snr"](schedule, 0.01, 0.9)(jax.random.key(0), n)))
    low, high = schedules.log_snr(schedule, jnp.asarray([0.9, 0.01]))
    assert np.abs((levels - low) / (high - low) - (np.arange(n) + 0.5) / n).max() < 1.63 / n**0.5  # Kolmogorov's, 99 %


@pytest.mark.parametrize("weight, factor", [("elbo", 0.5), ("likelihood", 1.0)])
@pytest.mark.parametrize("name", ["linear", "cosine", "edm"])
def test_log_snr_times_are_importance_sampling_for_the_bound(name, weight, factor):
    """The error of eps under uniform log-SNR is the bound under uniform t: one value, and far less scatter."""
    schedule, n, (least, most) = SCHEDULES[name](), 20_000, (1e-3, 0.999)
    world = analytic.gaussian(jnp.asarray([0.3]), jnp.asarray([0.8]))

    def losses(weight, times, seed):
        process = gaussian(schedule, PARAMETERIZATIONS["x0"](), WEIGHTS[weight]())
        keys = jax.random.split(jax.random.key(seed))
        x0 = world.draw(keys[0], n)
        return np.asarray(diffusion_loss(keys[1], world.denoise(schedule), process, times=times, x0=x0))

    high, low = schedules.log_snr(schedule, jnp.asarray([least, most]))
    plain = losses(weight, lambda key, n: jax.random.uniform(key, (n,), minval=least, maxval=most), 0) * (most - least)
    sampled = losses("simple", TIMES["log_snr"](schedule, least, most), 1) * float(factor * (high - low))
    exact = factor * np.log((1 + 0.8 * np.exp(high)) / (1 + 0.8 * np.exp(low)))
    assert sampled.mean() == pytest.approx(exact, abs=4 * sampled.std() / n**0.5)
    assert sampled.std() < 0.03 * n**0.5 * exact  # so that the line above says something
    assert plain.mean() == pytest.approx(exact, abs=5 * plain.std() / n**0.5)
    assert sampled.std() < plain.std()

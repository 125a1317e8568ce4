"""Laws that every schedule obeys; a new row of SCHEDULES is tested the moment it exists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedules
from diffjax.diffusion.schedules import SCHEDULES

with jax.enable_x64(True):
    T = jnp.linspace(0.002, 0.998, 499)
PRESERVING = {"linear", "cosine", "sigmoid", "discrete"}

every_schedule = pytest.mark.parametrize("name", SCHEDULES)


@every_schedule
def test_time_zero_is_exactly_data(name):
    alpha, sigma = SCHEDULES[name]()(jnp.zeros(()))
    assert (float(alpha), float(sigma)) == (1.0, 0.0)


@every_schedule
def test_ranges_and_shapes(name):
    alpha, sigma = SCHEDULES[name]()(T)
    assert alpha.shape == sigma.shape == T.shape
    assert ((alpha > 0) & (alpha <= 1)).all() and (sigma > 0).all()
    last_alpha, last_sigma = SCHEDULES[name]()(jnp.ones(()))
    assert last_alpha >= 0 and jnp.isfinite(last_sigma)


@every_schedule
def test_single_precision_keeps_its_dtype_and_its_ends(name):
    alpha, sigma = SCHEDULES[name]()(jnp.asarray([0.0, 0.5, 1.0], jnp.float32))
    assert alpha.dtype == sigma.dtype == jnp.float32
    assert alpha[0] == 1 and sigma[0] == 0 and alpha[2] >= 0


@every_schedule
def test_log_snr_falls(name):
    assert (jnp.diff(schedules.log_snr(SCHEDULES[name](), T)) < 0).all()


@every_schedule
def test_log_snr_definition(name):
    alpha, sigma = SCHEDULES[name]()(T)
    np.testing.assert_allclose(
        schedules.log_snr(SCHEDULES[name](), T), np.log(alpha**2 / sigma**2), rtol=1e-9, atol=1e-9
    )


@every_schedule
def test_inverse(name):
    schedule = SCHEDULES[name]()
    values = schedules.log_snr(schedule, T)
    np.testing.assert_allclose(schedules.time_of_log_snr(schedule, values), T, atol=1e-9)
    low, high = schedules.time_of_log_snr(schedule, jnp.asarray([-1e4, 1e4]))
    assert low == pytest.approx(1, abs=1e-9) and high == pytest.approx(0, abs=1e-9)


@every_schedule
def test_rates_are_slopes(name):
    schedule, h = SCHEDULES[name](), 1e-6
    t = T + 1e-4 * jnp.sqrt(2.0)  # off the knots of a table
    for slope, ahead, behind in zip(schedules.rates(schedule, t), schedule(t + h), schedule(t - h), strict=True):
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)


@every_schedule
def test_sde_moments(name):
    """The forward SDE has the schedule's marginals: d(alpha) = f alpha dt and d(sigma^2) = (2 f sigma^2 + g^2) dt."""
    schedule, h = SCHEDULES[name](), 1e-6
    t = T[5:-5] + 1e-4 * jnp.sqrt(2.0)
    (alpha, sigma), (f, g) = schedule(t), schedules.drift_and_diffusion(schedule, t)
    (alpha_1, sigma_1), (alpha_0, sigma_0) = schedule(t + h), schedule(t - h)
    np.testing.assert_allclose((alpha_1 - alpha_0) / (2 * h), f * alpha, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose((sigma_1**2 - sigma_0**2) / (2 * h), 2 * f * sigma**2 + g**2, rtol=1e-5, atol=1e-7)
    assert (g > 0).all()


@pytest.mark.parametrize("name", sorted(PRESERVING))
def test_variance_is_preserved(name):
    alpha, sigma = SCHEDULES[name]()(T)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-12)


@pytest.mark.parametrize("name", sorted({"ve", "edm"}))
def test_signal_is_kept(name):
    assert (SCHEDULES[name]()(T)[0] == 1).all()


def test_flow_is_the_straight_line():
    alpha, sigma = SCHEDULES["flow"]()(T)
    np.testing.assert_array_equal(alpha + sigma, 1)


def test_linear_beta_is_linear():
    """g^2 = beta(t) = beta_min + t (beta_max - beta_min) on a variance preserving schedule."""
    f, g = schedules.drift_and_diffusion(schedules.linear(0.1, 20.0), T)
    beta = 0.1 + T * 19.9
    np.testing.assert_allclose(g**2, beta, rtol=1e-9)
    np.testing.assert_allclose(f, -beta / 2, rtol=1e-9)


def test_edm_is_a_line_in_the_root_of_sigma():
    sigma = schedules.edm(0.002, 80.0, 7.0)(T)[1]
    np.testing.assert_allclose(jnp.diff(sigma ** (1 / 7), n=2), 0, atol=1e-12)
    assert schedules.edm(0.002, 80.0, 7.0)(jnp.ones(()))[1] == pytest.approx(80)


def test_discrete_chain_is_the_product_of_its_steps():
    betas = np.array([0.1, 0.3, 0.2, 0.6])
    alpha, sigma = schedules.from_betas(betas)(jnp.arange(5) / 4)
    np.testing.assert_allclose(alpha**2, [1, 0.9, 0.63, 0.504, 0.2016], rtol=1e-12)
    np.testing.assert_allclose(sigma**2, [0, 0.1, 0.37, 0.496, 0.7984], rtol=1e-12)


@pytest.mark.parametrize("betas", [[0.1, 1.0], [0.0, 0.1], [-0.1], [[0.1, 0.2]]])
def test_bad_betas_are_refused(betas):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        schedules.from_betas(np.array(betas))


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "ve", "edm", "flow", "discrete"])
def test_pure_noise_at_the_end(name):
    assert schedules.ends_in_pure_noise(SCHEDULES[name]()) == (name in {"cosine", "sigmoid", "flow"})


@every_schedule
def test_gradients_are_finite_inside(name):
    assert all(jnp.isfinite(slope).all() for slope in schedules.rates(SCHEDULES[name](), T))
    assert jnp.isfinite(jax.jacfwd(lambda t: schedules.log_snr(SCHEDULES[name](), t))(jnp.asarray(0.5)))

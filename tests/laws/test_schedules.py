"""Laws that every schedule obeys; a new row of SCHEDULES is tested the moment it exists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedules
from diffjax.diffusion.denoiser import on_schedule
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.testbed import analytic

with jax.enable_x64(True):
    T = jnp.linspace(0.002, 0.998, 499)
    OFF = T[5:-5] + 1e-4 * jnp.sqrt(2.0)  # off the knots of a table
PRESERVING = {"linear", "cosine", "sigmoid", "vdm", "discrete", "scaled_linear", "cosine_betas"}
# Transforms of rows obey the laws of rows.
ALL = SCHEDULES | {
    "flow_3": lambda: schedules.flow(3.0),
    "shifted_cosine": lambda: schedules.shifted(schedules.cosine(), 2.0),
    "shifted_edm": lambda: schedules.shifted(schedules.edm(), 0.5),
    "zero_linear": lambda: schedules.zero_terminal_snr(schedules.linear()),
    "zero_discrete": lambda: schedules.zero_terminal_snr(schedules.discrete()),
}

every_schedule = pytest.mark.parametrize("name", ALL)


@every_schedule
def test_time_zero_is_exactly_data(name):
    alpha, sigma = ALL[name]()(jnp.zeros(()))
    assert (float(alpha), float(sigma)) == (1.0, 0.0)


@every_schedule
def test_ranges_and_shapes(name):
    alpha, sigma = ALL[name]()(T)
    assert alpha.shape == sigma.shape == T.shape
    assert (alpha > 0).all() and (sigma > 0).all() and (name == "shifted_edm" or (alpha <= 1).all())
    last_alpha, last_sigma = ALL[name]()(jnp.ones(()))
    assert last_alpha >= 0 and jnp.isfinite(last_sigma)


@every_schedule
def test_single_precision_keeps_its_dtype_and_its_ends(name):
    alpha, sigma = jax.jit(ALL[name]())(jnp.asarray([0.0, 0.5, 1.0], jnp.float32))
    assert alpha.dtype == sigma.dtype == jnp.float32
    assert alpha[0] == 1 and sigma[0] == 0 and alpha[2] >= 0


@every_schedule
def test_single_precision_is_precise_near_the_data(name):
    """sigma(t) keeps its digits where it is small: no row subtracts numbers that are almost alike."""
    t = np.asarray([1e-4, 1e-3, 0.01], np.float32)
    single, double = ALL[name]()(jnp.asarray(t)), ALL[name]()(jnp.asarray(t, float))
    np.testing.assert_allclose(single[1], double[1], rtol=3e-5)


@every_schedule
def test_log_snr_falls(name):
    assert (jnp.diff(schedules.log_snr(ALL[name](), T)) < 0).all()


@every_schedule
def test_log_snr_definition(name):
    alpha, sigma = ALL[name]()(T)
    np.testing.assert_allclose(schedules.log_snr(ALL[name](), T), np.log(alpha**2 / sigma**2), rtol=1e-9, atol=1e-9)


@every_schedule
def test_inverse(name):
    schedule = ALL[name]()
    values = schedules.log_snr(schedule, T)
    np.testing.assert_allclose(schedules.time_of_log_snr(schedule, values), T, atol=1e-9)
    low, high = schedules.time_of_log_snr(schedule, jnp.asarray([-1e4, 1e4]))
    assert low == pytest.approx(1, abs=1e-9) and high == pytest.approx(0, abs=1e-9)


@every_schedule
def test_rates_are_slopes(name):
    schedule, h = ALL[name](), 1e-6
    t = T + 1e-4 * jnp.sqrt(2.0)
    for slope, ahead, behind in zip(schedules.rates(schedule, t), schedule(t + h), schedule(t - h), strict=True):
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)


@every_schedule
def test_sde_moments(name):
    """The forward SDE has the schedule's marginals: d(alpha) = f alpha dt and d(sigma^2) = (2 f sigma^2 + g^2) dt."""
    schedule, h = ALL[name](), 1e-6
    (alpha, sigma), (f, g) = schedule(OFF), schedules.drift_and_diffusion(schedule, OFF)
    (alpha_1, sigma_1), (alpha_0, sigma_0) = schedule(OFF + h), schedule(OFF - h)
    np.testing.assert_allclose((alpha_1 - alpha_0) / (2 * h), f * alpha, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose((sigma_1**2 - sigma_0**2) / (2 * h), 2 * f * sigma**2 + g**2, rtol=1e-5, atol=1e-7)
    assert (g > 0).all()


@every_schedule
def test_transitions_compose_to_the_marginals(name):
    """x_s given x_0, then x_t given x_s, is x_t given x_0; a short one is the SDE's step."""
    schedule = ALL[name]()
    t = jnp.linspace(0, 1, 21)
    for s in (t[:-1], 0.5 * t[:-1], 0 * t[:-1]):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t[1:]), schedule(s)
        a, variance = schedules.transition(schedule, t[1:], s)
        np.testing.assert_allclose(a * alpha_s, alpha_t, rtol=1e-12)
        np.testing.assert_allclose(a**2 * sigma_s**2 + variance, sigma_t**2, rtol=1e-10)
        assert (variance > 0).all()
    f, g = schedules.drift_and_diffusion(schedule, OFF)
    a, variance = schedules.transition(schedule, OFF + 1e-7, OFF)
    np.testing.assert_allclose((a - 1) / 1e-7, f, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(variance / 1e-7, g**2, rtol=2e-3)


@every_schedule
def test_no_time_no_change(name):
    a, variance = schedules.transition(ALL[name](), jnp.asarray([0.0, 0.4]), jnp.asarray([0.0, 0.4]))
    np.testing.assert_array_equal(a, 1)
    np.testing.assert_array_equal(variance, 0)


@every_schedule
def test_every_row_passes_the_check(name):
    schedules.check(ALL[name]())
    with jax.enable_x64(False):
        schedules.check(ALL[name]())


@pytest.mark.parametrize("name", sorted(PRESERVING | {"shifted_cosine", "zero_linear"}))
def test_variance_is_preserved(name):
    alpha, sigma = ALL[name]()(T)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-12)


@pytest.mark.parametrize("name", sorted({"ve", "edm"}))
def test_signal_is_kept(name):
    assert (SCHEDULES[name]()(T)[0] == 1).all()


def test_flow_is_the_straight_line():
    alpha, sigma = SCHEDULES["flow"]()(T)
    np.testing.assert_array_equal(alpha + sigma, 1)


def test_flow_shift_is_a_change_of_time():
    """Esser et al. 2024, eq. 23; on the straight line it lowers log-SNR by 2 log(shift), as `shifted` does."""
    there = 3.0 * T / (1 + 2.0 * T)
    np.testing.assert_allclose(jnp.stack(schedules.flow(3.0)(T)), jnp.stack(schedules.flow()(there)), rtol=1e-12)
    moved = schedules.log_snr(schedules.shifted(schedules.flow(), 3.0), T)
    np.testing.assert_allclose(schedules.log_snr(schedules.flow(3.0), T), moved, rtol=1e-9, atol=1e-9)


def test_linear_beta_is_linear():
    """g^2 = beta(t) = beta_min + t (beta_max - beta_min) on a variance preserving schedule."""
    f, g = schedules.drift_and_diffusion(schedules.linear(0.1, 20.0), T)
    beta = 0.1 + T * 19.9
    np.testing.assert_allclose(g**2, beta, rtol=1e-9)
    np.testing.assert_allclose(f, -beta / 2, rtol=1e-9)


def test_sub_vp_is_the_sde_of_the_paper():
    """g^2 = beta (1 - exp(-2 int beta)), the drift is that of VP, and the variance never more (Song 2021, eq. 12)."""
    f, g = schedules.drift_and_diffusion(schedules.sub_vp(0.2, 10.0), T)
    beta, integral = 0.2 + T * 9.8, 0.2 * T + 4.9 * T**2
    np.testing.assert_allclose(f, -beta / 2, rtol=1e-9)
    np.testing.assert_allclose(g**2, beta * -np.expm1(-2 * integral), rtol=1e-8)
    assert (schedules.sub_vp()(T)[1] < schedules.linear()(T)[1]).all()


def test_sigmoid_is_a_stretch_of_the_sigmoid():
    def bend(t):
        return 1 / (1 + np.exp(-(-2.0 + 6.0 * t) / 0.7))

    alpha, sigma = schedules.sigmoid(-2.0, 4.0, 0.7)(T)
    np.testing.assert_allclose(alpha**2, (bend(1) - bend(T)) / (bend(1) - bend(0)), rtol=1e-7)
    np.testing.assert_allclose(sigma**2, (bend(T) - bend(0)) / (bend(1) - bend(0)), rtol=1e-7)


def test_edm_is_a_line_in_the_root_of_sigma():
    sigma = schedules.edm(0.002, 80.0, 7.0)(T)[1]
    np.testing.assert_allclose(jnp.diff(sigma ** (1 / 7), n=2), 0, atol=1e-12)
    assert schedules.edm(0.002, 80.0, 7.0)(jnp.ones(()))[1] == pytest.approx(80)


def test_vdm_log_snr_is_a_line():
    np.testing.assert_allclose(schedules.log_snr(schedules.vdm(-10.0, 4.0), T), 10 - 14 * T, rtol=1e-9, atol=1e-9)


def test_from_gamma_is_its_inverse_sign():
    schedule = schedules.from_gamma(lambda t: t**3 * 20 - 9)
    np.testing.assert_allclose(schedules.log_snr(schedule, T), 9 - 20 * T**3, rtol=1e-9, atol=1e-9)


def test_discrete_chain_is_the_product_of_its_steps():
    betas = np.array([0.1, 0.3, 0.2, 0.6])
    alpha, sigma = schedules.from_betas(betas)(jnp.arange(5) / 4)
    np.testing.assert_allclose(alpha**2, [1, 0.9, 0.63, 0.504, 0.2016], rtol=1e-12)
    np.testing.assert_allclose(sigma**2, [0, 0.1, 0.37, 0.496, 0.7984], rtol=1e-12)


def test_the_chains_of_the_literature():
    """Written out again from the papers, in products rather than logarithms."""
    k = np.arange(1, 1001)

    def bar(name):
        return np.asarray(SCHEDULES[name]()(jnp.asarray(k / 1000))[0] ** 2)

    circle = np.cos((k / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(bar("discrete"), np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), rtol=1e-10)
    roots = np.linspace(0.00085**0.5, 0.012**0.5, 1000)
    np.testing.assert_allclose(bar("scaled_linear"), np.cumprod(1 - roots**2), rtol=1e-10)
    # the clip is felt in the last step alone, which on the circle would end at 0
    np.testing.assert_allclose(bar("cosine_betas")[:-1], circle[:-1], rtol=1e-9)
    np.testing.assert_allclose(bar("cosine_betas")[-1], 0.001 * circle[-2], rtol=1e-9)


@pytest.mark.parametrize("betas", [[0.1, 1.0], [0.0, 0.1], [-0.1], [[0.1, 0.2]]])
def test_bad_betas_are_refused(betas):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        schedules.from_betas(np.array(betas))


@pytest.mark.parametrize("name", SCHEDULES)
def test_pure_noise_at_the_end(name):
    """cosine_betas counts, though its clip leaves alpha(1) = 5e-5: errors of eps would come out 20,000 times larger."""
    pure = {"cosine", "sigmoid", "flow", "cosine_betas", "cubic"}  # cubic is the row of docs/adding.md
    assert schedules.ends_in_pure_noise(SCHEDULES[name]()) == (name in pure)


@every_schedule
def test_gradients_are_finite_inside(name):
    assert all(jnp.isfinite(slope).all() for slope in schedules.rates(ALL[name](), T))
    assert jnp.isfinite(jax.jacfwd(lambda t: schedules.log_snr(ALL[name](), t))(jnp.asarray(0.5)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_shifting_lowers_log_snr_and_keeps_the_power(name):
    schedule, shift = SCHEDULES[name](), 3.0
    moved = schedules.shifted(schedule, shift)
    lowered = schedules.log_snr(schedule, T) - 2 * np.log(shift)
    np.testing.assert_allclose(schedules.log_snr(moved, T), lowered, rtol=1e-9, atol=1e-9)
    power, power_moved = (sum(part**2 for part in s(T)) for s in (schedule, moved))
    np.testing.assert_allclose(power_moved, power, rtol=1e-12)
    for one, other in zip(schedules.shifted(moved, 1 / shift)(T), schedule(T), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("name", sorted(PRESERVING))
def test_zero_terminal_snr(name):
    """alpha ends at 0, starts at 1, and is an affine function of what it was; what ends at 0 already stays."""
    schedule = SCHEDULES[name]()
    zero = schedules.zero_terminal_snr(schedule)
    last = float(schedule(jnp.ones(()))[0])
    np.testing.assert_array_equal(jnp.stack(zero(jnp.ones(3)))[0], 0)
    np.testing.assert_allclose(jnp.stack(zero(jnp.ones(3)))[1], 1, rtol=1e-12)
    np.testing.assert_allclose(zero(T)[0], (schedule(T)[0] - last) / (1 - last), rtol=1e-9)
    assert schedules.ends_in_pure_noise(zero)
    slope = schedules.rates(zero, jnp.asarray([0.95]))[0] / schedules.rates(schedule, jnp.asarray([0.95]))[0]
    np.testing.assert_allclose(slope, 1 / (1 - last), rtol=1e-9)


@pytest.mark.parametrize("beta_max", [5 + 20 * x / 39 for x in (2, 7)])
def test_zero_terminal_snr_never_rounds_below_zero(beta_max):
    """Folded constants and vectors round apart by one bit; these are options where that bit is negative here."""
    zero = schedules.zero_terminal_snr(schedules.linear(0.1, beta_max))
    alpha, _ = jax.jit(zero)(jnp.linspace(0, 1, 7, dtype=jnp.float32))
    assert alpha[-1] == pytest.approx(0, abs=1e-7) and alpha[-1] >= 0


def test_zero_terminal_snr_keeps_its_slope_at_the_end():
    zero = schedules.zero_terminal_snr(schedules.linear())
    last = float(schedules.linear()(jnp.ones(()))[0])
    expected = schedules.rates(schedules.linear(), jnp.ones(()))[0] / (1 - last)
    np.testing.assert_allclose(schedules.rates(zero, jnp.ones(()))[0], expected, rtol=1e-9)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - PRESERVING - {"cubic"}))
def test_zero_terminal_snr_is_for_vp_alone(name):
    with pytest.raises(ValueError, match="zero_terminal_snr needs alpha\\^2 \\+ sigma\\^2 = 1, as 'linear' has; got"):
        schedules.zero_terminal_snr(SCHEDULES[name]())


BROKEN = {
    "be finite; this one reads alpha=inf, .* at t=0": lambda t: (1 / t, t),
    "be exactly data, \\(1, 0\\), at t = 0; this one reads alpha=1, sigma=0.01 at t=0": lambda t: (1 - t, 0.01 + t),
    "be exactly data, \\(1, 0\\), at t = 0; this one reads alpha=0.5, sigma=0 at t=0": lambda t: (0.5 * (1 - t), t),
    "have noise at t = 1; this one reads alpha=1, sigma=0 at t=1": lambda t: (jnp.ones_like(t), t * (1 - t)),
    "fall in log-SNR; .* at t=0.501": lambda t: (jnp.ones_like(t), t * (1 - t) + 0.01 * (t > 0)),
    "fall in log-SNR; .* at t=0.751": lambda t: (jnp.maximum(1 - t, 0.25), jnp.minimum(t, 0.75)),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_broken_schedules_are_refused_with_the_place(sentence):
    with pytest.raises(ValueError, match=f"a schedule must {sentence}"):
        schedules.check(BROKEN[sentence])


@pytest.mark.parametrize(
    "trained, driven", [("edm", name) for name in SCHEDULES] + [("flow", "ve"), ("linear", "flow")]
)
def test_a_denoiser_moves_exactly_to_another_schedule(trained, driven):
    """Exact denoisers of one world on two schedules are one function, wherever both reach the level."""
    world = analytic.mixture(
        jnp.asarray([[-1.0, 0.3], [0.5, 1.0]]), jnp.asarray([[0.3, 0.1], [0.05, 0.6]]), jnp.asarray([0.4, 0.6])
    )
    old, new = SCHEDULES[trained](), SCHEDULES[driven]()
    t = jnp.linspace(0.03, 0.97, 40)
    levels, (high, low) = schedules.log_snr(new, t), schedules.log_snr(old, jnp.asarray([1e-6, 1.0]))
    t = t[(levels > low) & (levels < high)]
    assert len(t) >= 20
    x = jax.random.normal(jax.random.key(0), (len(t), 2)) * sum(jnp.stack(new(t)))[:, None]
    moved = on_schedule(world.denoise(old), trained=old, driven=new)
    np.testing.assert_allclose(moved(x, t, None), world.denoise(new)(x, t, None), rtol=1e-6, atol=1e-8)


def test_a_moved_denoiser_takes_one_time_or_one_for_each_element():
    schedule, other = SCHEDULES["flow"](), SCHEDULES["cosine"]()

    def denoise(xt, t, cond):
        return xt * cond + (t if t.ndim != 1 else t[:, None])

    moved = on_schedule(denoise, trained=schedule, driven=other)
    x = jax.random.normal(jax.random.key(0), (3, 2))
    alone = moved(x, jnp.asarray(0.4), 2.0)
    np.testing.assert_allclose(moved(x, jnp.full(3, 0.4), 2.0), alone, rtol=1e-12)
    np.testing.assert_allclose(moved(x, jnp.full((3, 2), 0.4), 2.0), alone, rtol=1e-12)

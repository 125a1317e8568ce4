"""Laws of parameterizations and weights: round trips, definitions, which weight is which prediction's error, bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedules
from diffjax.diffusion.gaussian import gaussian, posterior
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS, check, from_x0, to_x0
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.weights import WEIGHTS
from diffjax.testbed import analytic

with jax.enable_x64(True):
    T = jnp.linspace(0.05, 0.95, 7)
    X0, EPS = jax.random.normal(jax.random.key(0), (2, 7, 3, 2))
each_pair = pytest.mark.parametrize("prediction", PARAMETERIZATIONS)
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


def column(values):
    return values[:, None, None]


def noisy(schedule):
    alpha, sigma = schedule(T)
    return column(alpha) * X0 + column(sigma) * EPS


def meaning(prediction, schedule):
    """What the network should answer, from its definition in the paper rather than from four coefficients."""
    alpha, sigma = map(column, schedule(T))
    alpha_rate, sigma_rate = map(column, schedules.rates(schedule, T))
    total = jnp.sqrt(sigma**2 + alpha**2 * 0.25)
    return {
        "x0": X0,
        "eps": EPS,
        # the gradient of log N(x_t; alpha x_0, sigma^2)
        "score": -(noisy(schedule) - alpha * X0) / sigma**2,
        "v": alpha * EPS - sigma * X0,
        "velocity": alpha_rate * X0 + sigma_rate * EPS,
        # (x_0 - c_skip y) / c_out with y = x_t / alpha, s = sigma / alpha, data_std 0.5 (Karras et al. 2022, table 1)
        "edm": (X0 - 0.25 / ((sigma / alpha) ** 2 + 0.25) * (X0 + sigma / alpha * EPS)) / (sigma * 0.5 / total),
    }[prediction]


@each_pair
@each_schedule
def test_the_true_answer_gives_the_true_data(prediction, name):
    schedule, row = SCHEDULES[name](), PARAMETERIZATIONS[prediction]()
    x0_hat = to_x0(row, schedule, meaning(prediction, schedule), xt=noisy(schedule), t=T)
    np.testing.assert_allclose(x0_hat, X0, rtol=1e-6, atol=1e-6 if name in ("ve", "edm") else 1e-9)


@each_pair
@each_schedule
def test_round_trip(prediction, name):
    schedule, row, xt = SCHEDULES[name](), PARAMETERIZATIONS[prediction](), noisy(SCHEDULES[name]())
    raw = from_x0(row, schedule, X0, xt=xt, t=T)
    np.testing.assert_allclose(to_x0(row, schedule, raw, xt=xt, t=T), X0, rtol=1e-8, atol=1e-8)


@each_pair
@each_schedule
def test_a_pair_is_refused_exactly_where_it_cannot_start_from_noise(prediction, name):
    """At t = 1 in single precision: the answer that means x_0 gives x_0 back, or `check` says that it does not."""
    schedule, row, t = SCHEDULES[name](), PARAMETERIZATIONS[prediction](), jnp.ones(7, jnp.float32)
    alpha, sigma = map(column, schedule(t))
    x0, eps = X0.astype(jnp.float32), EPS.astype(jnp.float32)
    xt = alpha * x0 + sigma * eps
    back = to_x0(row, schedule, from_x0(row, schedule, x0, xt=xt, t=t), xt=xt, t=t)
    if bool((jnp.abs(back - x0) < 2e-4).all()):
        check(row, schedule)
        coefficients = jnp.stack(row(schedule, jnp.asarray([1e-4, 0.5, 1.0])))
        assert jnp.isfinite(coefficients).all() and jnp.abs(coefficients).max() < 1e4
    else:
        with pytest.raises(ValueError, match="ill-posed"):
            check(row, schedule)


def test_edm_keeps_input_and_target_at_unit_variance():
    schedule, std = schedules.edm(), 0.5
    x0, eps = jax.random.normal(jax.random.key(1), (2, 3, 200_000)) * jnp.asarray([std, 1.0])[:, None, None]
    t = jnp.asarray([0.1, 0.4, 0.9])
    xt = x0 + schedule(t)[1][:, None] * eps
    c = PARAMETERIZATIONS["edm"](std)(schedule, t)
    target = from_x0(PARAMETERIZATIONS["edm"](std), schedule, x0, xt=xt, t=t)
    np.testing.assert_allclose(jnp.std(c.scale[:, None] * xt, axis=1), 1, atol=0.01)
    np.testing.assert_allclose(jnp.std(target, axis=1), 1, atol=0.01)


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "vdm", "discrete"])
def test_v_is_edm_for_unit_data_with_the_sign_turned(name):
    schedule = SCHEDULES[name]()
    v, edm = PARAMETERIZATIONS["v"]()(schedule, T), PARAMETERIZATIONS["edm"](1.0)(schedule, T)
    np.testing.assert_allclose(v.skip, edm.skip, rtol=1e-9)
    np.testing.assert_allclose(v.out, -edm.out, rtol=1e-9)
    np.testing.assert_allclose(edm.scale, 1, rtol=1e-9)


OWN = {"x0": "x0", "eps": "simple", "score": "score", "v": "snr", "velocity": "velocity", "edm": "edm"}


@pytest.mark.parametrize("prediction, weight", OWN.items())
@each_schedule
def test_a_weight_is_the_error_of_its_prediction(prediction, weight, name):
    """w |x0_hat - x_0|^2 = |F_hat - F|^2, so w out^2 = 1; for v up to alpha^2 + sigma^2, which is 1 on VP."""
    schedule = SCHEDULES[name]()
    alpha, sigma = schedule(T)
    c = PARAMETERIZATIONS[prediction]()(schedule, T)
    norm = alpha**2 + sigma**2 if weight == "snr" else 1
    np.testing.assert_allclose(WEIGHTS[weight]()(schedule, T) * c.out**2 * norm, 1, rtol=1e-8)


def test_every_prediction_has_its_own_weight():
    assert set(OWN) == set(PARAMETERIZATIONS)


@pytest.mark.parametrize("weight", WEIGHTS)
@each_schedule
def test_weights_are_positive_and_shaped_like_time(weight, name):
    w = WEIGHTS[weight]()(SCHEDULES[name](), T)
    assert w.shape == T.shape and (w > 0).all() and jnp.isfinite(w).all()
    ends = WEIGHTS[weight]()(SCHEDULES[name](), jnp.asarray([1e-4, 1.0], jnp.float32))
    assert ends.dtype == jnp.float32 and (ends >= 0).all() and jnp.isfinite(ends).all()


def test_min_snr_is_the_lesser():
    schedule = schedules.linear()
    snr = np.exp(schedules.log_snr(schedule, T))
    assert snr.min() < 5 < snr.max()
    np.testing.assert_allclose(WEIGHTS["min_snr"](5.0)(schedule, T), np.minimum(snr, 5.0), rtol=1e-9)


def snr_of(name, t):
    return np.exp(schedules.log_snr(SCHEDULES[name](), t))


@each_schedule
def test_the_bound_is_the_fall_of_snr(name):
    """-SNR'/2 by differences of SNR; in a chain the difference itself (Kingma et al. 2021, sections 4 and 5)."""
    schedule, t, h = SCHEDULES[name](), T + 1e-4 * jnp.sqrt(2.0), 1e-6
    slope = (snr_of(name, t + h) - snr_of(name, t - h)) / (2 * h)
    np.testing.assert_allclose(WEIGHTS["elbo"]()(schedule, t), -0.5 * slope, rtol=1e-5)
    k = jnp.arange(2, 21)
    chain = WEIGHTS["elbo_discrete"](20)(schedule, k / 20)
    np.testing.assert_allclose(chain, 10 * (snr_of(name, (k - 1) / 20) - snr_of(name, k / 20)), rtol=1e-8)
    first = jnp.asarray([0.05])
    np.testing.assert_allclose(WEIGHTS["elbo_discrete"](20)(schedule, first), WEIGHTS["elbo"]()(schedule, first))


def kl(mean, std, other_mean, other_std):
    """KL(N(mean, std^2) | N(other_mean, other_std^2))."""
    ratio = (std / other_std) ** 2
    return 0.5 * (ratio - 1 - np.log(ratio) + ((mean - other_mean) / other_std) ** 2)


@each_schedule
def test_the_bound_of_a_chain_is_its_kl_divergences(name):
    """Each term is KL(q(x_s | x_t, x_0) | q(x_s | x_t, x0_hat)), in nats (Ho et al. 2020, eq. 5)."""
    schedule, steps = SCHEDULES[name](), 10
    t = jnp.arange(2, steps + 1) / steps
    keep, pull, std = map(np.asarray, posterior(schedule, t, t - 1 / steps))
    x0, x0_hat, xt = 0.8, -0.3, 0.5
    terms = kl(keep * xt + pull * x0, std, keep * xt + pull * x0_hat, std)
    bound = WEIGHTS["elbo_discrete"](steps)(schedule, t) * (x0_hat - x0) ** 2
    np.testing.assert_allclose(bound / steps, terms, rtol=1e-7)  # a term is drawn with probability 1 / steps


@pytest.mark.parametrize("name", ["linear", "cosine", "vdm", "edm"])
def test_the_bound_of_the_exact_denoiser_is_exact(name):
    """For Gaussian data both sides are known: the weighted error integrates to a difference of entropies."""
    schedule, v = SCHEDULES[name](), 0.7
    edges = jnp.linspace(0.02, 0.98, 20_001)
    t = 0.5 * (edges[1:] + edges[:-1])
    alpha, sigma = schedule(t)
    error = v * sigma**2 / (alpha**2 * v + sigma**2)
    integral = (WEIGHTS["elbo"]()(schedule, t) * error).sum() * (edges[1] - edges[0])
    high, low = snr_of(name, edges[jnp.asarray([0, -1])])
    assert float(integral) == pytest.approx(0.5 * np.log((1 + v * high) / (1 + v * low)), rel=1e-4)


@each_schedule
def test_likelihood_is_g_squared_on_the_score(name):
    schedule = SCHEDULES[name]()
    (alpha, sigma), (_, g) = schedule(T), schedules.drift_and_diffusion(schedule, T)
    likelihood = WEIGHTS["likelihood"]()(schedule, T)
    np.testing.assert_allclose(likelihood, g**2 * alpha**2 / sigma**4, rtol=1e-7)
    np.testing.assert_allclose(likelihood, 2 * WEIGHTS["elbo"]()(schedule, T), rtol=1e-12)


@pytest.mark.parametrize("name", ["ve", "edm", "linear"])
def test_dsm_is_the_loss_of_ncsn(name):
    """sigma^2 |s + (x_t - x_0) / sigma^2|^2, and for alpha < 1 the kernel's own score (Song & Ermon 2019, eq. 5-6)."""
    schedule, x0_hat = SCHEDULES[name](), X0 + 0.1 * EPS
    alpha, sigma = map(column, schedule(T))
    xt = noisy(schedule)
    score = from_x0(PARAMETERIZATIONS["score"](), schedule, x0_hat, xt=xt, t=T)
    loss = sigma**2 * (score + (xt - alpha * X0) / sigma**2) ** 2
    got = gaussian(schedule, PARAMETERIZATIONS["score"](), WEIGHTS["dsm"]()).loss(X0, xt, T, x0_hat)
    np.testing.assert_allclose(got, loss, rtol=1e-7)


@each_schedule
def test_sigmoid_weight_is_the_damped_bound(name):
    """-lambda'/2 e^bias sigmoid(lambda - bias) on the error of x_0 (Hoogeboom et al. 2024, section 3)."""
    schedule, h = SCHEDULES[name](), 1e-6
    t = T + 1e-4 * jnp.sqrt(2.0)
    level, ahead, behind = (schedules.log_snr(schedule, t + d) for d in (0, h, -h))
    expected = -0.5 * (ahead - behind) / (2 * h) * np.exp(-0.5) / (1 + np.exp(-level - 0.5))
    np.testing.assert_allclose(WEIGHTS["sigmoid"](-0.5)(schedule, t), expected, rtol=1e-5)


def test_p2_damps_the_error_of_eps():
    schedule, snr = schedules.linear(), np.exp(schedules.log_snr(schedules.linear(), T))
    np.testing.assert_allclose(WEIGHTS["p2"](2.0, 0.5)(schedule, T), snr / (2 + snr) ** 0.5, rtol=1e-9)
    np.testing.assert_allclose(WEIGHTS["p2"](gamma=0.0)(schedule, T), WEIGHTS["simple"]()(schedule, T), rtol=1e-12)
    np.testing.assert_allclose(WEIGHTS["p2"]()(schedule, T) * (1 + snr), snr, rtol=1e-9)


def test_the_score_of_the_exact_denoiser_is_the_gradient_of_the_log_density():
    schedule = schedules.flow()
    means, variances, shares = jnp.asarray([-1.0, 0.5]), jnp.asarray([0.3, 0.05]), jnp.asarray([0.4, 0.6])
    world = analytic.mixture(means[:, None], variances[:, None], shares)
    xt = jnp.linspace(-1.5, 1.5, len(T))

    def log_density(x, t):
        alpha, sigma = schedule(t)
        total = alpha**2 * variances + sigma**2
        return jax.nn.logsumexp(jnp.log(shares) - 0.5 * (x - alpha * means) ** 2 / total - 0.5 * jnp.log(total))

    x0_hat = world.denoise(schedule)(xt[:, None], T, None)
    score = from_x0(PARAMETERIZATIONS["score"](), schedule, x0_hat, xt=xt[:, None], t=T)
    np.testing.assert_allclose(score[:, 0], jax.vmap(jax.grad(log_density))(xt, T), rtol=1e-8)


@each_schedule
def test_the_process_speaks_for_its_rows(name):
    """prepare, estimate and loss of the process are the coefficients and the weight, and nothing else."""
    schedule = SCHEDULES[name]()
    process = gaussian(schedule, PARAMETERIZATIONS["edm"](), WEIGHTS["min_snr"]())
    c, xt = PARAMETERIZATIONS["edm"]()(schedule, T), noisy(schedule)
    x_in, level = process.prepare(xt, T)
    np.testing.assert_allclose(x_in, column(c.scale) * xt)
    np.testing.assert_allclose(level, c.level)
    np.testing.assert_allclose(process.estimate(EPS, xt, T), column(c.skip) * xt + column(c.out) * EPS)
    expected = column(WEIGHTS["min_snr"]()(schedule, T)) * (EPS - X0) ** 2
    np.testing.assert_allclose(process.loss(X0, xt, T, EPS), expected, rtol=1e-9)

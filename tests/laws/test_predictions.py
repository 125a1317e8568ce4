"""Laws of parameterizations and weights: round trips, definitions, and which weight is which prediction's own error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedules
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS, from_x0, to_x0
from diffjax.diffusion.schedules import SCHEDULES, ends_in_pure_noise
from diffjax.diffusion.weights import WEIGHTS

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
def test_coefficients_are_finite_wherever_the_pair_is_well_posed(prediction, name):
    schedule = SCHEDULES[name]()
    t = jnp.asarray([1e-4, 0.5, 1.0])
    coefficients = jnp.stack(PARAMETERIZATIONS[prediction]()(schedule, t))
    ill_posed = prediction == "eps" and ends_in_pure_noise(schedule)
    assert bool(jnp.isfinite(coefficients).all() and jnp.abs(coefficients).max() < 1e6) != ill_posed


def test_edm_keeps_input_and_target_at_unit_variance():
    schedule, std = schedules.edm(), 0.5
    x0, eps = jax.random.normal(jax.random.key(1), (2, 3, 200_000)) * jnp.asarray([std, 1.0])[:, None, None]
    t = jnp.asarray([0.1, 0.4, 0.9])
    xt = x0 + schedule(t)[1][:, None] * eps
    c = PARAMETERIZATIONS["edm"](std)(schedule, t)
    target = from_x0(PARAMETERIZATIONS["edm"](std), schedule, x0, xt=xt, t=t)
    np.testing.assert_allclose(jnp.std(c.scale[:, None] * xt, axis=1), 1, atol=0.01)
    np.testing.assert_allclose(jnp.std(target, axis=1), 1, atol=0.01)


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "discrete"])
def test_v_is_edm_for_unit_data_with_the_sign_turned(name):
    schedule = SCHEDULES[name]()
    v, edm = PARAMETERIZATIONS["v"]()(schedule, T), PARAMETERIZATIONS["edm"](1.0)(schedule, T)
    np.testing.assert_allclose(v.skip, edm.skip, rtol=1e-9)
    np.testing.assert_allclose(v.out, -edm.out, rtol=1e-9)
    np.testing.assert_allclose(edm.scale, 1, rtol=1e-9)


OWN = {"x0": "x0", "eps": "simple", "v": "snr", "velocity": "velocity", "edm": "edm"}


@pytest.mark.parametrize("prediction, weight", OWN.items())
@each_schedule
def test_a_weight_is_the_error_of_its_prediction(prediction, weight, name):
    """w |x0_hat - x_0|^2 = |F_hat - F|^2, so w out^2 = 1; for v up to alpha^2 + sigma^2, which is 1 on VP."""
    schedule = SCHEDULES[name]()
    alpha, sigma = schedule(T)
    c = PARAMETERIZATIONS[prediction]()(schedule, T)
    norm = alpha**2 + sigma**2 if weight == "snr" else 1
    np.testing.assert_allclose(WEIGHTS[weight]()(schedule, T) * c.out**2 * norm, 1, rtol=1e-8)


@pytest.mark.parametrize("weight", WEIGHTS)
@each_schedule
def test_weights_are_positive_and_shaped_like_time(weight, name):
    w = WEIGHTS[weight]()(SCHEDULES[name](), T)
    assert w.shape == T.shape and (w > 0).all() and jnp.isfinite(w).all()


def test_min_snr_is_the_lesser():
    schedule = schedules.linear()
    snr = np.exp(schedules.log_snr(schedule, T))
    assert snr.min() < 5 < snr.max()
    np.testing.assert_allclose(WEIGHTS["min_snr"](5.0)(schedule, T), np.minimum(snr, 5.0), rtol=1e-9)


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

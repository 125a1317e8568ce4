"""Tilted denoisers against exact conditional laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import parameterizations, sampling, solvers, weights
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.guidance import classifier_free, extrapolate, static_threshold
from diffjax.diffusion.inverse import classifier, dps, inpaint, pigdm, tilted
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.types import rows
from diffjax.testbed import analytic

with jax.enable_x64(True):
    T, XT, LABEL = jnp.asarray([0.15, 0.5, 0.9]), jax.random.normal(jax.random.key(0), (3, 4)), np.asarray([0, 1, 1])
    MEAN, STD, NOISE = jnp.asarray([[0.5, -1.0, 0.2, 0.0]]), jnp.asarray([0.8, 1.3, 0.5, 1.0]), 0.3
    DENSE, TALL = jax.random.normal(jax.random.key(1), (2, 4)), jax.random.normal(jax.random.key(2), (6, 4))
    POOL, CENTRES = jnp.kron(jnp.eye(2), jnp.full((1, 2), 0.5)), jnp.asarray([[1, -0.5, 0.3, 0], [-1, 0.4, 0, 0.8]])
    Y, SHARES = jnp.asarray([[0.7, -0.4], [2.0, 0.0], [-1.0, 1.0]]), jnp.asarray([0.3, 0.7])
FLOW = SCHEDULES["flow"]()
MATRICES = {"mask": np.eye(4)[1:3], "pool": POOL, "sum": np.ones((1, 4)), "dense": DENSE, "tall": TALL}
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


def modes(schedule):  # denoiser of two modes, log p(label | x_t), denoiser of the mode that cond names
    def log_prob(xt, t, cond):
        alpha, sigma = (level[:, None, None] for level in schedule(t))
        squared = (xt[:, None] - alpha * CENTRES[None]) ** 2 / (alpha**2 * 0.2 + sigma**2)
        log_p = jax.nn.log_softmax(jnp.log(SHARES)[None] - 0.5 * squared.sum(-1))
        return jnp.take_along_axis(log_p, cond[:, None], axis=1)[:, 0]

    def one(xt, t, cond):
        each = (analytic.gaussian(m, jnp.full(4, 0.2)).denoise(schedule)(xt, t, None) for m in CENTRES)
        return jnp.where(cond[:, None] == 0, *each)

    return analytic.mixture(CENTRES, jnp.full((2, 4), 0.2), SHARES).denoise(schedule), log_prob, one


def prior(schedule):
    """The denoiser of N(MEAN, STD^2), for any kind of time."""

    def denoise(xt, t, cond=None):
        (alpha, sigma), variance = (rows(level, xt) for level in schedule(t)), STD.astype(xt.dtype)[None] ** 2
        mean = MEAN.astype(xt.dtype)
        return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (xt - alpha * mean)

    return denoise


def exact(schedule, A, y, t):
    """E[x_0 | x_t, y] and its precision: those of prior, y and x_t add."""
    alpha, sigma = (jnp.broadcast_to(rows(level, XT), XT.shape) for level in schedule(t))
    precision = (jnp.diag(1 / STD**2) + A.T @ A / NOISE**2)[None] + jax.vmap(jnp.diag)((alpha / sigma) ** 2)
    pull = MEAN / STD[None] ** 2 + jnp.atleast_2d(y) @ A / NOISE**2 + alpha / sigma**2 * XT
    return jnp.linalg.solve(precision, pull[..., None])[..., 0], precision


def guided(rule, schedule, A, y, **options):
    options |= {"data_std": STD} if rule is pigdm else {}
    return rule(prior(schedule), schedule, lambda x0: x0 @ A.T.astype(x0.dtype) + 7, y + 7, noise_std=NOISE, **options)


@each_schedule
def test_the_exact_classifier_gives_the_exact_conditional(name):
    schedule = SCHEDULES[name]()
    both, log_prob, one = modes(schedule)
    plain, there, scale = both(XT, T, LABEL), one(XT, T, LABEL), jnp.asarray([-1.0, 1.0, 3.0])
    got = classifier(both, schedule, log_prob, scale)(XT, T, LABEL)
    np.testing.assert_allclose(got, plain + scale[:, None] * (there - plain), rtol=1e-6, atol=1e-8)


def test_the_declared_orders_give_the_same():
    schedule, same = SCHEDULES["cosine"](), lambda denoise: denoise
    both, log_prob, one = modes(schedule)
    rules = {
        "tilt": lambda d: classifier(d, schedule, log_prob, 2.0),
        "other": lambda d: classifier(d, schedule, lambda xt, t, cond: -(xt**4).sum(1), 0.1),
        "fill": lambda d: inpaint(d, 0.3 * XT[0], np.asarray([1, 0, 0, 1])),
        "clip": lambda d: static_threshold(d, -0.5, 0.8),
    }
    arms = {name: lambda f, rule=rule: rule(f(both)) for name, rule in rules.items()}
    arms["extrapolate"] = lambda f: extrapolate(f(both), f(one), 3.0)
    arms["classifier_free"] = lambda f: classifier_free(f(one), 0, 3.0)
    declared = "tilt other, tilt extrapolate, fill extrapolate, fill classifier_free, fill clip"
    for f, whole in ((rules[a], arms[b]) for a, b in map(str.split, declared.split(","))):
        np.testing.assert_allclose(whole(f)(XT, T, LABEL), f(whole(same))(XT, T, LABEL), rtol=1e-9, atol=1e-12)
    got = inpaint(both, jnp.where(XT > 0, XT, jnp.nan), XT > 0)(XT, T, LABEL)  # what is not known is not looked at
    np.testing.assert_array_equal(got, jnp.where(XT > 0, XT, both(XT, T, LABEL)))


@each_schedule
@pytest.mark.parametrize("matrix", MATRICES)
def test_pigdm_is_exact_for_gaussian_data(matrix, name):
    schedule, A, y = SCHEDULES[name](), MATRICES[matrix], jnp.resize(Y, (3, len(MATRICES[matrix])))
    for t in (T, jnp.linspace(0.1, 0.9, 12).reshape(3, 4)) if name == "flow" else (T,):  # per row and per element
        got = guided(pigdm, schedule, A, y)(XT, t, None)
        np.testing.assert_allclose(got, exact(schedule, A, y, t)[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["linear", "cosine", "ve"])
def test_ddim_with_pigdm_draws_the_exact_posterior(name):
    """The walk is affine in its start, so the law of its end is read off D + 1 rows, without chance; order one."""
    schedule, errors = SCHEDULES[name](), []
    solver = solvers.SOLVERS["ddim"](gaussian(schedule, parameterizations.x0(), weights.x0()))
    (alpha, sigma), (mean, precision) = schedule(jnp.asarray(0.98)), exact(FLOW, DENSE, Y[0], jnp.ones(()))
    mean, covariance = mean[:1], jnp.linalg.inv(precision[0])
    spread = jnp.linalg.cholesky(alpha**2 * covariance + sigma**2 * jnp.eye(4)).T
    x = alpha * mean + jnp.concatenate([jnp.zeros((1, 4)), spread])
    for steps in (100, 200):
        ts = jnp.linspace(0.98, 0, steps + 1)
        ends = sampling.sample(jax.random.key(0), guided(pigdm, schedule, DENSE, Y[0]), solver, ts=ts, x=x)
        slope = ends[1:] - ends[:1]
        np.testing.assert_allclose(ends[:1], mean, rtol=1e-9)
        errors.append(float(jnp.abs(slope.T @ slope - covariance).max()))
    assert errors[1] < 0.03 and errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_dps_is_the_gradient_and_exact_in_little_noise():
    t = jnp.asarray([0.1, 0.01, 0.001])
    plain, truth = prior(FLOW)(XT, t), exact(FLOW, DENSE, Y[0], t)[0]
    error = jnp.abs(guided(dps, FLOW, DENSE, Y[0])(XT, t, None) - truth).max(1) / jnp.abs(truth - plain).max(1)
    assert error[1] < error[0] / 30 and error[2] < error[1] / 90 and error[2] < 1e-3
    bent = lambda x0: jnp.sin(x0 @ DENSE.T)  # noqa: E731
    energy = lambda x: -0.5 * (((Y - bent(prior(FLOW)(x, T))) / 0.2) ** 2).sum()  # noqa: E731
    tilt = 0.5 * (T**2 / (1 - T))[:, None] * jax.grad(energy)(XT)
    got = dps(prior(FLOW), FLOW, bent, Y, noise_std=lambda t: 0.2, scale=0.5)(XT, T, None)
    np.testing.assert_allclose(got, prior(FLOW)(XT, T) + tilt, rtol=1e-6)


@pytest.mark.parametrize("rule", [dps, pigdm])
def test_ends_rows_and_gradients(rule):
    t = jnp.asarray([0.0, 0.5, 1.0])
    got = guided(rule, FLOW, DENSE, Y)(XT, t, None)
    np.testing.assert_allclose(got[::2], jnp.stack([XT[0], MEAN[0]]))  # sigma = 0, and alpha = 0: no tilt, no NaN
    np.testing.assert_allclose(got[1:2], guided(rule, FLOW, DENSE, Y[1:2])(XT[1:2], t[1:2], None), rtol=1e-12)
    total = lambda x, y: guided(rule, FLOW, DENSE, y)(x, t.astype(x.dtype), None).sum()  # noqa: E731
    by_x, by_y = jax.jit(jax.grad(total, (0, 1)))(XT.astype(np.float32), Y.astype(np.float32))
    assert by_x.dtype == np.float32 and np.isfinite(by_x).all() and np.abs(by_y[1]).min() > 1e-3
    np.testing.assert_allclose(by_y, jax.grad(total, 1)(XT, Y), rtol=1e-3)


BAD = {
    r"y \(2, 2\) must be shaped like \(3, 2\)": lambda d: guided(dps, FLOW, DENSE, Y[:2]),
    "scale must be at least 0, .* got -1.0": lambda d: guided(dps, FLOW, DENSE, Y, scale=-1.0),
    r"measure must keep the rows of x_0 \(3, 4\)": lambda d: dps(d, FLOW, jnp.sum, Y, noise_std=1.0),
    "noise_std must be positive; got 0.0": lambda d: dps(d, FLOW, jnp.sin, XT, noise_std=0.0),
    "noise_std must be positive; got -1.0": lambda d: pigdm(d, FLOW, jnp.sin, XT, noise_std=-1.0),
    "data_std must be positive; got 0.0": lambda d: pigdm(d, FLOW, jnp.sin, XT, noise_std=1.0, data_std=0.0),
    r"3 rows must be one number each; got \(3, 4\)": lambda d: classifier(d, FLOW, lambda xt, t, cond: xt),
    r"answers \(2, 4\) to x_t \(3, 4\)": lambda d: tilted(lambda xt, t, cond: xt[:2], FLOW, d),
    "mask must be 1 where known and 0 elsewhere": lambda d: inpaint(d, XT, 0.5 * XT),
    r"known \(2, 4\) must be shaped like \(3, 4\)": lambda d: inpaint(d, XT[:2], np.ones(4)),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_a_sentence_before_anything_compiles(words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(BAD[words](prior(FLOW)), XT, T, None)

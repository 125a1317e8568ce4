"""Guidance against its definitions and against exact laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import guidance
from diffjax.diffusion.guidance import apg, classifier_free, dynamic_threshold, extrapolate, interval, static_threshold
from diffjax.diffusion.schedules import SCHEDULES, time_of_log_snr
from diffjax.testbed import analytic

with jax.enable_x64(True):
    T, COND = jnp.asarray([0.2, 0.5, 0.8]), jnp.asarray([0, 1, 2])
    XT = jax.random.normal(jax.random.key(0), (3, 2, 2))
    SCALES = {"number": 2.5, "whole": 2, "away": -1.5, "row": jnp.asarray([0.0, 1.0, 4.0]), "time": lambda t: 1 + 3 * t}
NULL = 3


def network(xt, t, cond):
    """Some function of all that a network sees, row by row and of any rank, within (-3, 3)."""
    shift = jnp.asarray([1.0, -0.5, 2.0, 0.3], xt.dtype)[cond]
    shift, t = (value.reshape(value.shape + (1,) * (xt.ndim - value.ndim)) for value in (shift, t))
    return 3 * jnp.tanh(xt * jnp.cos(xt + shift) + shift) * (1 - t / 2)


def unconditional(xt, t, cond):
    return network(xt, t, jnp.full_like(cond, NULL))


GUIDES = {
    "extrapolate": lambda scale, at: extrapolate(unconditional, network, scale),
    "classifier_free": lambda scale, at: classifier_free(network, NULL, scale),
    "negative": lambda scale, at: guidance.negative(network, jnp.asarray([2, 0, 1])[at], scale),
    "apg": lambda scale, at: apg(network, NULL, scale, parallel=0.3, radius=jnp.asarray([0.8, 2.0, 9.0])[at]),
    "rescaled": lambda scale, at: guidance.rescaled(classifier_free(network, NULL, scale), network),
    "interval": lambda scale, at: classifier_free(network, NULL, interval(scale, low=0.4, high=0.9)),
    "static_threshold": lambda scale, at: static_threshold(classifier_free(network, NULL, scale)),
    "dynamic_threshold": lambda scale, at: dynamic_threshold(classifier_free(network, NULL, scale), 0.6),
}
ALL = slice(None)
each_guide = pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)


def equal(a, b, rtol=1e-12):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14, equal_nan=False)


@pytest.mark.parametrize("other", [[NULL, NULL, NULL], [2, 0, 1]], ids=["null", "negative"])
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_guidance_is_the_line_through_two_calls(scale, other):
    value = np.broadcast_to(scale(T) if callable(scale) else scale, 3)[:, None, None]
    other = jnp.asarray(other)
    strong, weak = network(XT, T, COND), network(XT, T, other)
    two = extrapolate(lambda xt, t, cond: network(xt, t, other), network, scale)
    for guided in (two, classifier_free(network, other, scale), guidance.negative(network, other, scale)):
        equal(guided(XT, T, COND), weak + value * (strong - weak))
    equal(classifier_free(network, NULL, scale)(XT, T, COND), GUIDES["extrapolate"](scale, ALL)(XT, T, COND))


def test_one_call_of_twice_the_batch():
    sizes = []

    def counted(*inputs):
        sizes.append([len(x) for x in inputs])
        return network(*inputs)

    for guide in (classifier_free, guidance.negative, apg):
        guide(counted, jnp.full(3, NULL), 2.0)(XT, T, COND)
    assert sizes == 3 * [[6, 6, 6]]


@each_guide
def test_rows_are_alone(guide):
    """A scale per row is a run per row, and nothing else of the batch is felt."""
    scales = jnp.asarray([-1.0, 2.0, 4.0])
    together = guide(scales, ALL)(XT, T, COND)
    for i in range(3):
        one = slice(i, i + 1)
        equal(guide(scales[i], one)(XT[one], T[one], COND[one]), together[one])


@each_guide
@pytest.mark.parametrize("shape", [(), (1,), (2, 2)])
def test_any_kind_of_time_and_any_rank(guide, shape):
    """One time for all rows is that time in every row and in every element."""
    xt, scale = jnp.resize(XT, (3, *shape)), SCALES["time"]
    expected = guide(2.5, ALL)(xt, jnp.full(3, 0.5), COND)
    for t in (jnp.asarray(0.5), jnp.full(3, 0.5), jnp.full((3,) + (1,) * len(shape), 0.5), jnp.full(xt.shape, 0.5)):
        equal(guide(scale, ALL)(xt, t, COND), expected)


@each_guide
@pytest.mark.parametrize("cond", [COND, jnp.full(3, NULL)], ids=["away", "at the null"])
def test_traced_differentiable_and_of_single_precision(guide, cond):
    x, t, scale = XT.astype(np.float32), T.astype(np.float32), jnp.float32(2.5)
    loss = lambda scale, x: (guide(scale, ALL)(x, t, cond) ** 2).sum()  # noqa: E731
    value, (by_scale, by_x) = jax.jit(jax.value_and_grad(loss, (0, 1)))(scale, x)
    plain = loss(2.5, x)
    assert plain.dtype == value.dtype == np.float32
    equal(value, plain, rtol=1e-5)
    assert np.isfinite(by_scale) and np.isfinite(by_x).all() and np.abs(by_x).max() > 0


def test_options_may_be_traced_or_functions_of_time():
    run = lambda q, v: dynamic_threshold(apg(network, NULL, 2.0, radius=v), q, v)(XT, T, COND)  # noqa: E731
    equal(jax.jit(run)(0.5, 0.5), run(0.5, 0.5))
    equal(run(0.5, lambda t: 0.5 + 0 * t), run(0.5, 0.5))


@pytest.mark.parametrize("name", SCHEDULES)
def test_autoguidance_multiplies_densities(name):
    """At every t the law is strong^w weak^(1 - w) / Z: for two Gaussians known by its score."""
    schedule, w = SCHEDULES[name](), 2.2
    worlds = (analytic.gaussian(jnp.asarray([m]), jnp.asarray([v])) for m, v in ((1.0, 0.4), (0.7, 0.9)))
    (strong, weak), (alpha, sigma), x = (world.denoise(schedule) for world in worlds), schedule(T), XT[:, 0, 0]
    score = w * (alpha - x) / (alpha**2 * 0.4 + sigma**2) + (1 - w) * (0.7 * alpha - x) / (alpha**2 * 0.9 + sigma**2)
    got = extrapolate(weak, strong, w)(x[:, None], T, None)[:, 0]
    np.testing.assert_allclose(got, (x + sigma**2 * score) / alpha, rtol=1e-6, atol=1e-9)


def test_an_interval_guides_inside_and_conditions_outside():
    guided, plain = classifier_free(network, NULL, 4.0)(XT, T, COND), network(XT, T, COND)
    got = classifier_free(network, NULL, interval(jnp.full(3, 4.0), low=0.2, high=0.6))(XT, T, COND)
    equal(got, jnp.stack([guided[0], guided[1], plain[2]]))  # the ends belong to it: t = 0.2
    schedule, t = SCHEDULES["cosine"](), jnp.linspace(0, 1, 101)
    low, high = time_of_log_snr(schedule, -2 * jnp.log(jnp.asarray([0.31, 2.9])))  # from noise levels
    alpha, sigma = schedule(t)
    equal(interval(3.0, low=low, high=high)(t), jnp.where((sigma >= 0.31 * alpha) & (sigma <= 2.9 * alpha), 3, 1))


def test_the_declared_orders_give_the_same():
    nested = extrapolate(unconditional, extrapolate(unconditional, network, 0.7), 3.0)
    equal(nested(XT, T, COND), extrapolate(unconditional, network, 2.1)(XT, T, COND))
    t, early, late = jnp.linspace(0, 1, 101), dict(low=0.1, high=0.6), dict(low=0.4, high=0.8)
    clips = (-2.0, 0.5), (-0.4, 3.0)
    for (a, b), (one, other) in zip(((early, late), (late, early)), (clips, clips[::-1]), strict=True):
        equal(interval(interval(3.0, **a), **b)(t), interval(3.0, low=0.4, high=0.6)(t))
        clipped = static_threshold(static_threshold(network, *one), *other)
        equal(clipped(XT, T, COND), static_threshold(network, -0.4, 0.5)(XT, T, COND))


def test_rescaled_meets_the_conditional_std():
    loud, share = classifier_free(network, NULL, 5.0), jnp.asarray([0.0, 0.5, 1.0])
    got, guided, plain = (f(XT, T, COND) for f in (guidance.rescaled(loud, network, share), loud, network))
    stds = np.asarray([x.reshape(3, -1).std(axis=1) for x in (guided, plain)])
    equal(got[0], guided[0])
    equal(got.reshape(3, -1).std(axis=1), (1 - share) * stds[0] + share * stds[1])
    equal(got / guided, jnp.broadcast_to((got / guided)[:, :1, :1], got.shape))  # the direction is kept
    assert np.abs(stds[0] / stds[1] - 1).min() > 0.05


def test_thresholds_by_definition_and_idempotent():
    x0_hat = np.asarray(network(XT, T, COND))
    static, dynamic = static_threshold(network, -0.5, 1.5), dynamic_threshold(network, 0.6, 1.5)
    equal(static(XT, T, COND), np.clip(x0_hat, -0.5, 1.5))
    limits = np.maximum(np.quantile(np.abs(x0_hat), 0.6, axis=(1, 2), keepdims=True), 1.5)
    assert (limits > 1.5).any() and (limits == 1.5).any()
    equal(dynamic(XT, T, COND), np.clip(x0_hat, -limits, limits) * 1.5 / limits)
    equal(static_threshold(static, -0.5, 1.5)(XT, T, COND), static(XT, T, COND))
    equal(dynamic_threshold(dynamic, 0.6, 1.5)(XT, T, COND), dynamic(XT, T, COND))


def test_apg_between_classifier_free_and_its_projection():
    inputs, strong = (XT, T, COND), network(XT, T, COND)
    equal(apg(network, NULL, 3.0, parallel=1.0)(*inputs), classifier_free(network, NULL, 3.0)(*inputs))
    equal(apg(network, NULL, 1.0, radius=0.1)(*inputs), strong)
    update = lambda **options: (apg(network, NULL, 3.0, **options)(*inputs) - strong) / 2  # noqa: E731
    whole, turned = update(parallel=1.0), update(parallel=0.0)
    equal((turned * strong).sum((1, 2)), 0, rtol=0)
    along = (whole * strong).sum((1, 2)) / (strong**2).sum((1, 2))  # what is taken out is along x0_hat, all of it
    equal(whole - turned, along[:, None, None] * strong)
    radius = jnp.sqrt((whole**2).sum((1, 2))) * jnp.asarray([0.5, 1.0, 2.0])
    equal(update(parallel=1.0, radius=radius), whole * jnp.asarray([0.5, 1.0, 1.0])[:, None, None])


def test_dictionaries_and_logits_are_guided_leaf_by_leaf():
    xt = {"x": XT, "tokens": jnp.asarray([[0, 1], [2, 0], [1, 1]])}

    def joint(xt, t, cond):
        logits = jax.nn.one_hot(xt["tokens"], 4, dtype=t.dtype) * cond["label"][:, None, None]
        return {"x": network(xt["x"], t, cond["label"]), "tokens": logits}

    scale = SCALES["row"]
    got = classifier_free(joint, {"label": NULL}, scale)(xt, T, {"label": COND})
    equal(got["x"], classifier_free(network, NULL, scale)(XT, T, COND))
    levels = NULL + scale * (COND - NULL)
    equal(got["tokens"], jax.nn.one_hot(xt["tokens"], 4, dtype=T.dtype) * levels[:, None, None])


def narrow(xt, t, cond):
    return xt[..., :1]


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: classifier_free(network, None, 2.0), "null condition .* got None"),
        (lambda: lambda xt, t, cond: apg(network, NULL, 2.0)(xt, t, None), "a condition to guide towards; got None"),
        (lambda: classifier_free(network, jnp.asarray([1, 2]), 2.0), r"null \(2,\) must be shaped like \(3,\)"),
        (lambda: extrapolate(network, narrow, 2.0), r"answers \(3, 2, 1\) to x_t \(3, 2, 2\)"),
        (lambda: classifier_free(narrow, NULL, 2.0), r"answers \(6, 2, 1\) to x_t \(6, 2, 2\)"),
        (lambda: guidance.rescaled(network, narrow), "must answer for every element"),
        (lambda: static_threshold(narrow), "must answer for every element"),
        (lambda: dynamic_threshold(narrow), "must answer for every element"),
        (lambda: classifier_free(network, NULL, jnp.ones(2)), r"got \(2,\) values for data \(3, 2, 2\); give"),
        (lambda: extrapolate(network, network, lambda t: t[:2]), "one number, or one for each row"),
        (lambda: apg(network, NULL, 2.0, radius=np.asarray([1.0, 0.0, 2.0])), "radius must be positive"),
        (lambda: interval(2.0, low=0.5, high=0.5), "low < high; got 0.5, 0.5"),
        (lambda: static_threshold(network, 1.0, 1.0), "low < high; got 1.0, 1.0"),
        (lambda: dynamic_threshold(network, 0.0), r"quantile must lie in \(0, 1\]; got 0.0"),
        (lambda: dynamic_threshold(network, 1.5), r"quantile must lie in \(0, 1\]; got 1.5"),
        (lambda: dynamic_threshold(network, 0.9, -1.0), "bound must be positive; got -1.0"),
        (lambda: guidance.rescaled(network, network, 1.2), r"share must lie in \[0, 1\]; got 1.2"),
        (lambda: guidance.rescaled(network, network, -0.2), r"share must lie in \[0, 1\]; got -0.2"),
    ],
)
def test_bad_input_is_a_sentence_before_anything_compiles(build, words):
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(lambda: build()(XT, T, COND))

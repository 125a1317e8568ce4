"""Tokens: laws by enumeration of all sequences, so that most of them hold to the last digits."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import masked, sampling, schedules, uniform
from diffjax.diffusion.grids import grid
from diffjax.diffusion.solvers.first_order import ancestral
from diffjax.diffusion.solvers.tokens import blocks, chosen, confidence, likeliest, margin
from diffjax.testbed.chains import TOKEN_WORLDS, chain, independent, sequences

V, L = 3, 3
SCHEDULES = {"flow": schedules.flow(), "cosine": schedules.cosine(), "linear": schedules.linear()}
MASKED = SimpleNamespace(module=masked, process=masked.masked, states=V + 1, noise=np.eye(V + 1)[V])
UNIFORM = SimpleNamespace(module=uniform, process=uniform.uniform, states=V, noise=np.full(V, 1 / V))
each_kind = pytest.mark.parametrize("kind", [MASKED, UNIFORM], ids=["masked", "uniform"])
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)

with jax.enable_x64(True):
    FIRST, NEXT = jnp.asarray([0.5, 0.3, 0.2]), jnp.asarray([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.3, 0.1, 0.6]])
    EACH = jnp.asarray([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.34, 0.33, 0.33]])
    CHAIN, ALONE, ALL = chain(FIRST, NEXT, L), independent(EACH), sequences(V, L)
LAWS = np.einsum("a,ab,bc->abc", FIRST, NEXT, NEXT).ravel(), np.einsum("a,b,c->abc", *EACH).ravel()
each_world = pytest.mark.parametrize("world", [CHAIN, ALONE], ids=TOKEN_WORLDS)


def of(kind, schedule):
    return kind.process(schedule, lambda schedule, t: jnp.ones_like(t), V)


def denoiser(kind, schedule, world):
    return world.denoise(kind.module.likelihood(schedule, V))


def kernel(kind, a):
    """q(x_t | x_s) over the states of one token, from its definition: kept with probability a, else noise."""
    return a * np.eye(kind.states) + (1 - a) * kind.noise[None]


def fits(samples, law, base):
    """Chi squared, against five of its standard deviations; what has no probability must not occur."""
    cells = np.ravel_multi_index(np.asarray(samples).T, (base,) * samples.shape[1])
    seen, wanted = np.bincount(cells, minlength=len(law)), len(samples) * np.asarray(law)
    can = wanted > 1e-9
    distance, freedom = np.sum((seen - wanted)[can] ** 2 / wanted[can]), can.sum() - 1
    return not seen[~can].any() and distance <= freedom + 5 * (2 * freedom) ** 0.5


def pushed(kind, schedule, world, ts):
    """The exact law of what `ancestral` draws along ts, in the order of ALL: the product of the steps' kernels."""
    states = sequences(kind.states, L)
    law = jnp.prod(jnp.asarray(kind.noise)[states], axis=1)

    def step(law, times):
        t, s = times
        p = jax.nn.softmax(denoiser(kind, schedule, world)(states, t))
        p = kind.module.posterior(schedule, states, p, t=t, s=s)  # [states, L, states of one token]
        return law @ jnp.prod(p[:, jnp.arange(L)[None], states], axis=-1), None

    return jax.lax.scan(step, law, (ts[:-1], ts[1:]))[0][(states < V).all(axis=1)]


def variation(kind, schedule, world, ts):  # between what is sampled and the truth, in total
    return 0.5 * float(jnp.abs(pushed(kind, schedule, world, ts) - jnp.exp(world.log_prob(ALL))).sum())


def falls_like_one_over(counts, errors):
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("world, law", [(CHAIN, LAWS[0]), (ALONE, LAWS[1])], ids=TOKEN_WORLDS)
def test_a_world_is_its_law(world, law):
    found = np.append(jnp.exp(world.log_prob(ALL)), world.entropy)
    np.testing.assert_allclose(found, np.append(law, -np.sum(law * np.log(law))), rtol=1e-12)
    assert fits(world.draw(jax.random.key(0), 50_000), law, V)


@each_world
@each_kind
def test_the_exact_denoiser_by_enumeration(kind, world):
    t, states, schedule = jnp.asarray([[0.2, 0.7, 1.0]]), sequences(kind.states, L), SCHEDULES["linear"]
    seen = kind.module.likelihood(schedule, V)(states, t)[:, jnp.arange(L)[None], ALL]
    joint = jnp.exp(world.log_prob(ALL))[None] * jnp.prod(seen, axis=-1)
    exact = jnp.einsum("bn,nlv->blv", joint, jax.nn.one_hot(ALL, V)) / joint.sum(axis=1)[:, None, None]
    np.testing.assert_allclose(jnp.exp(denoiser(kind, schedule, world)(states, t)), exact, atol=1e-12)


@each_schedule
@each_kind
def test_noise_is_a_chain_and_its_undoing_is_bayes_rule(kind, schedule):
    """Chapman-Kolmogorov; and q(x_s | x_t, x_0), which changes nothing where s = t."""
    likelihood, states = kind.module.likelihood(schedule, V), jnp.arange(kind.states)[:, None]
    for t, s in jnp.asarray([(1.0, 0.0), (1.0, 0.4), (0.7, 0.3), (0.2, 0.0), (0.5, 0.5), (1.0, 1.0)]):
        (alpha_t, _), (alpha_s, _) = schedule(t), schedule(s)
        between = kernel(kind, alpha_t / alpha_s if alpha_t < alpha_s else 1.0)
        at_t, at_s = (likelihood(states, u)[:, 0].T for u in (t, s))  # [x_0, x]
        np.testing.assert_allclose([at_t, at_s @ between], [kernel(kind, alpha_t)[:V]] * 2, atol=1e-14)
        for x0 in range(V):
            p = jnp.broadcast_to(jnp.eye(V)[x0], (kind.states, 1, V))
            undo = kind.module.posterior(schedule, states, p, t=t, s=s)[:, 0]  # [x_t, x_s]
            joint, possible = at_s[x0][None] * between.T, at_t[x0] > 0
            np.testing.assert_allclose(undo[possible], (joint / at_t[x0][:, None])[possible], atol=1e-12)


@each_kind
def test_dividing_by_the_evidence_keeps_the_marginal(kind):
    """Without it (Austin et al. 2021, eq. 4) a step is right for masks, and wrong for uniform noise."""
    prior, t, s, states = np.asarray([0.7, 0.2, 0.1]), jnp.asarray(0.7), jnp.asarray(0.3), jnp.arange(kind.states)
    at_t, at_s, between = kernel(kind, 0.3)[:V], kernel(kind, 0.7)[:V], kernel(kind, 0.3 / 0.7)
    p = prior[:, None] * at_t / (prior @ at_t)[None]  # [x_0, x_t]
    ours = kind.module.posterior(SCHEDULES["flow"], states[:, None], jnp.asarray(p.T[:, None]), t=t, s=s)[:, 0]
    theirs = np.einsum("vt,vs,st->ts", p, at_s, between)
    for undo, right in ((ours, True), (theirs / theirs.sum(axis=1, keepdims=True), kind is MASKED)):
        assert (np.abs((prior @ at_t) @ undo - prior @ at_s).max() < 1e-12) == right


@each_schedule
@each_kind
def test_float32_leaves_no_mask_and_no_negative_probability(kind, schedule):
    with jax.enable_x64(False):
        t, xt = jnp.linspace(1e-3, 1, 4000), jnp.full((4000, 1), kind.states - 1)
        p = jnp.tile(jnp.eye(V)[:1], (4000, 1, 1))
        undo = jax.jit(lambda s: kind.module.posterior(schedule, xt, p, t=t, s=s)[:, 0])
        assert all((undo(share * t) >= 0).all() for share in (0.5, 0.999999, 1.0)) and (undo(0 * t)[:, 1:] == 0).all()


@each_schedule
@each_kind
def test_corruption_has_its_marginal_at_each_elements_own_time(kind, schedule):
    process, n, t, x0 = of(kind, schedule), 40_000, jnp.asarray([[0.0, 0.4, 0.8]]), jnp.asarray([[2, 0, 1]])
    xt = process.corrupt(jax.random.key(0), jnp.repeat(x0, n, axis=0), t)
    laws = [kernel(kind, schedule(t[0, i])[0])[x0[0, i]] for i in range(L)]
    assert fits(xt, np.einsum("a,b,c->abc", *laws).ravel(), kind.states)
    assert fits(process.prior(jax.random.key(0), jnp.zeros((n, 1), int), jnp.ones(())), kind.noise, kind.states)


@pytest.mark.parametrize("steps", [1, 2, 5])
@each_schedule
@each_kind
def test_independent_tokens_are_exact_in_any_number_of_steps(kind, schedule, steps):
    off = L * float(schedule(jnp.ones(()))[0]) if kind is UNIFORM else 0  # its prior's error; masks have none
    assert variation(kind, schedule, ALONE, grid(steps)) < 1e-12 + off


@each_kind
def test_a_chain_is_hit_to_first_order_and_exactly_one_token_at_a_time(kind):
    counts, schedule = (16, 32, 64, 128), SCHEDULES["cosine"]
    assert falls_like_one_over(counts, [variation(kind, schedule, CHAIN, grid(n)) for n in counts])
    assert variation(kind, schedule, CHAIN, blocks(grid(1), L, 1)) < 1e-12
    assert variation(kind, schedule, CHAIN, blocks(grid(1), L, 2)) > 1e-2  # a block's tokens are drawn independently


def everything(kind, schedule, world, t):
    """(x_0, x_t, probability) of all pairs at time t."""
    states = sequences(kind.states, L)
    x0, xt = jnp.repeat(ALL, len(states), axis=0), jnp.tile(states, (len(ALL), 1))
    seen = jnp.take_along_axis(kind.module.likelihood(schedule, V)(xt, t), x0[..., None], axis=-1)[..., 0]
    return x0, xt, (jnp.exp(world.log_prob(x0)) * jnp.prod(seen, axis=1))[:, None]


@each_world
@pytest.mark.parametrize("name", ["flow", "cosine"])
def test_the_masked_loss_under_its_bounds_weight_is_the_entropy(name, world):
    schedule, process = SCHEDULES[name], masked.masked(SCHEDULES[name], masked.masked_elbo, V)

    @jax.jit
    def loss(t):
        x0, xt, p = everything(MASKED, schedule, world, t)
        return jnp.sum(p * process.loss(x0, xt, t, denoiser(MASKED, schedule, world)(xt, t)))

    nodes, weights = np.polynomial.legendre.leggauss(24)
    total = sum(w / 2 * loss(jnp.asarray((x + 1) / 2)) for x, w in zip(nodes, weights, strict=True))
    np.testing.assert_allclose(total, world.entropy, rtol=1e-8)


def test_the_uniform_bound_is_the_entropy_of_independent_tokens_and_tends_to_it_for_others():
    schedule, counts = SCHEDULES["cosine"], (16, 32, 64)

    def gap(world, ts):
        @jax.jit
        def term(t, s):
            x0, xt, p = everything(UNIFORM, schedule, world, t)
            return jnp.sum(p * uniform.bound(schedule, V, x0, xt, denoiser(UNIFORM, schedule, world)(xt, t), t, s))

        return float(sum(map(term, ts[:-1], ts[1:])) - world.entropy)

    assert abs(gap(ALONE, grid(1))) < 1e-10 and abs(gap(ALONE, grid(5))) < 1e-10
    assert falls_like_one_over(counts, [gap(CHAIN, grid(n)) for n in counts])


def run(kind, solver, ts, n, world=CHAIN):
    process, like = of(kind, SCHEDULES["flow"]), jnp.zeros((n, len(world.draw(jax.random.key(0), 1)[0])), int)
    key, denoise, rule = jax.random.key(2), denoiser(kind, SCHEDULES["flow"], world), solver(process)
    return jax.jit(lambda ts: sampling.generate(key, denoise, rule, process=process, ts=ts, like=like))(ts)


@each_kind
def test_the_loop_draws_what_the_kernels_say(kind):
    ts = blocks(grid(2), L, 2)
    assert fits(run(kind, ancestral, ts, 30_000), pushed(kind, SCHEDULES["flow"], CHAIN, ts), V)


@pytest.mark.parametrize("measure, temperature", [(likeliest, 0.0), (margin, 0.0), (chosen, 1e9), (chosen, 0.0)])
def test_confidence_is_exact_one_token_at_a_time_unless_it_looks_at_what_it_drew(measure, temperature):
    samples = run(MASKED, lambda process: confidence(process, temperature, measure=measure), grid(L), 20_000)
    assert fits(samples, LAWS[0], V) == (measure is not chosen or temperature > 0)


def network(xt, t, cond):
    return 2 * jnp.sin(xt[..., None] + jnp.arange(3.0).reshape((1,) * xt.ndim + (3,)))


@each_schedule
def test_confidence_reveals_what_the_schedule_wants_visible(schedule):
    """round(N alpha_s) of a block's N tokens; other blocks are left alone, and what was revealed stays."""
    solver, ts, x = confidence(of(MASKED, schedule)), blocks(grid(3), 7, 4), jnp.full((5, 7), V)
    walk = partial(sampling.walk, denoise=network, solver=solver, x=x, record=lambda x: x)
    seen = jax.jit(lambda ts: walk(jax.random.key(0), ts=ts)[1])(ts)
    wanted = jnp.round(jnp.asarray([4, 3])[None] * schedule(ts[1:, 0, ::4])[0])[:, None]
    visible = jnp.stack([(part < V).sum(axis=-1) for part in (seen[..., :4], seen[..., 4:])], axis=-1)
    np.testing.assert_array_equal(visible, jnp.broadcast_to(wanted, visible.shape))
    assert ((seen[1:] == seen[:-1]) | (seen[:-1] == V)).all()


def test_a_token_is_masked_again_when_others_are_surer():
    """At t = 1 the first of three masks is surest, later the other two are; the fourth token is given."""
    solver = confidence(of(MASKED, SCHEDULES["flow"]), hold=0.0, measure=likeliest)

    def denoise(xt, t, cond):
        sure = jnp.where(t[:, None] == 1, jnp.asarray([[2.0, 1, 1, 0]]), jnp.asarray([[0.0, 8, 9, 0]]))
        return sure[..., None] * jnp.eye(V)[:1, None]

    ts, x = jnp.asarray([1.0, 0.5, 0.3, 0.0]), jnp.asarray([[V, V, V, 2]])
    seen = sampling.walk(jax.random.key(0), denoise, solver, ts=ts, x=x, record=lambda x: x[0])[1]
    np.testing.assert_array_equal(seen == V, np.asarray([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_array_equal(seen[:, 3], 2)


@pytest.mark.parametrize("kind, solver", [(MASKED, ancestral), (UNIFORM, ancestral), (MASKED, confidence)])
def test_a_row_does_not_depend_on_its_batch(kind, solver):
    process = of(kind, SCHEDULES["cosine"])
    walk = partial(sampling.generate, denoise=network, solver=solver(process), process=process, ts=grid(4))
    draw = lambda n: walk(sampling.row_keys(jax.random.key(3), n), like=jnp.zeros((n, 3, 2), jnp.uint8))  # noqa: E731
    few, more = draw(3), draw(7)
    np.testing.assert_array_equal(few, more[:3])
    assert more.dtype == jnp.uint8 and (more < V).all() and len(np.unique(more, axis=0)) > 1


def test_what_is_visible_is_certain_and_costs_nothing():
    process, raw = masked.masked(SCHEDULES["flow"], masked.masked_elbo, V), jnp.asarray([[[0.3, 2, 1], [0.5, 0, 0]]])
    x0, xt, t = jnp.asarray([[0, 1]]), jnp.asarray([[0, V]]), jnp.asarray([[0.0, 0.25]])
    loss = lambda raw: process.loss(x0, xt, t, process.estimate(raw, xt, t))  # noqa: E731
    np.testing.assert_array_equal(jax.nn.softmax(process.estimate(raw, xt, t))[0, 0], [1, 0, 0])
    np.testing.assert_allclose(loss(raw), [[0, 4 * jnp.log(2 + jnp.exp(0.5))]])  # the weight is 1 / t, infinite at 0
    assert jnp.isfinite(jax.grad(lambda raw: loss(raw).sum())(raw)).all()

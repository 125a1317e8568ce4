"""Likelihoods against densities, entropies and bounds that are known in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import dequantization, likelihood, schedules
from diffjax.diffusion.likelihood import DIVERGENCES, bits_per_dim
from diffjax.diffusion.sampling import row_keys
from diffjax.diffusion.schedules import SCHEDULES, log_snr, time_of_log_snr
from diffjax.testbed import analytic

LEAST, EXACT, FLOW, NORMAL = 1e-3, likelihood.exact(), schedules.flow(), jax.scipy.stats.norm
KEY, SHORT = partial(jax.random.key, 0), schedules.ve(0.01, 1.0)  # at whose end much of the data is left
FAR = {"ve": (0.01, 500.0), "edm": (0.002, 500.0)}  # to where the prior misses less than 1e-4 nats
M, V = np.array([[-0.6, 0.3, 0.0], [0.6, -0.3, 0.0]]), np.array([[0.05, 0.1, 0.2], [0.1, 0.02, 0.2]])  # of mean 0


def mixture(dims=3):
    return analytic.mixture(jnp.asarray(M[:, :dims]), jnp.asarray(V[:, :dims]), jnp.asarray([0.5, 0.5]))


def log_density(x, alpha=1.0, sigma=0.0):
    """log of the mixture's density at noise (alpha, sigma): every component is again Gaussian."""
    m, v = alpha * M[:, : x.shape[1]], alpha**2 * V[:, : x.shape[1]] + sigma**2
    parts = -0.5 * np.sum((np.asarray(x)[:, None] - m) ** 2 / v + np.log(2 * np.pi * v), axis=2)
    return np.log(0.5 * np.exp(parts).sum(axis=1))


def walk(x0, schedule=FLOW, world=None, key=None, **options):
    denoise, options = (world or mixture(x0.shape[1])).denoise(schedule), {"steps": 64, "divergence": EXACT} | options
    return jax.jit(lambda x, key: likelihood.ode(denoise, schedule, x, key=key, **options))(x0, key)


def even_in_log_snr(schedule, steps, last=LEAST):
    first, last = log_snr(schedule, jnp.asarray([1.0, last]))
    return time_of_log_snr(schedule, jnp.linspace(jnp.maximum(first, -14.0), last, steps + 1))


@pytest.mark.parametrize("name, bits", [("linear", 64), ("cosine", 64), ("ve", 64), ("edm", 64), ("flow", 32)])
def test_with_the_exact_trace_the_ode_gives_the_density(name, bits):
    with jax.enable_x64(bits == 64):
        schedule, x0 = SCHEDULES[name](*FAR.get(name, ())), mixture().draw(KEY(), 32)
        got, levels = walk(x0, schedule, steps=96), map(float, schedule(jnp.asarray(LEAST)))
    np.testing.assert_allclose(got.nats, log_density(x0, *levels), atol=1e-4 if bits == 64 else 2e-3)
    assert (got.standard_error == 0).all() and got.nats.dtype == f"float{bits}" and "576 calls" in got.protocol


def test_the_prior_is_the_samplers():
    """One Gaussian: its flow is known, and carries N(0, sigma^2) to the density; sigma^2 is not the deviation."""
    schedule, v, x0 = schedules.ve(0.01, 10.0), jnp.asarray([0.3, 0.7]), jnp.asarray([[0.4, -1.0], [0.0, 0.3]])
    world, one, least = analytic.gaussian(0 * v, v), jnp.ones(()), jnp.asarray(LEAST)
    end, sigma = analytic.gaussian_flow(world, schedule, x0, t=least, s=one), schedule(one)[1]
    stretch = 0.5 * jnp.log((v + sigma**2) / (v + schedule(least)[1] ** 2)).sum()
    density = lambda std: NORMAL.logpdf(end, scale=std).sum(axis=1) + stretch  # noqa: E731
    np.testing.assert_allclose(walk(x0, schedule, world).nats, density(sigma), atol=1e-5)
    assert np.abs(density(sigma**2) - density(sigma)).min() > 1


def test_the_mean_is_minus_the_entropy_in_bits():
    grid, (alpha, sigma) = np.linspace(-5, 5, 20_001)[:, None], map(float, FLOW(jnp.asarray(LEAST)))
    entropy = -np.sum(np.exp(log_p := log_density(grid, alpha, sigma)) * log_p) * (grid[1, 0] - grid[0, 0])
    x = alpha * mixture(1).draw(jax.random.key(1), 1000) + sigma * jax.random.normal(jax.random.key(2), (1000, 1))
    got = walk(x, divergence=likelihood.hutchinson(), key=KEY())  # in one dimension a random sign is exact
    bits = bits_per_dim(got.nats, 1)
    assert abs(bits.mean() - entropy / np.log(2)) < 2 * bits.std() / 1000**0.5 and got.standard_error.max() < 1e-9


def test_the_solver_error_is_the_error_and_of_order_four():
    *runs, truth = [walk(mixture().draw(KEY(), 32), steps=n) for n in (128, 256, 1024)]
    errors = [np.abs(run.nats - truth.nats).max() for run in runs]
    assert all(error / 3 < run.solver_error.max() < 3 * error for run, error in zip(runs, errors, strict=True))
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 4, atol=0.4)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_estimates_are_unbiased_and_know_their_error(name):
    row, n, matrix = DIVERGENCES[name](), 20_000, jax.random.normal(KEY(), (7, 7))
    probes = jax.random.rademacher(jax.random.key(1), (row.probes, n, 7), jnp.float64)
    traces = row.traces(lambda v: jnp.broadcast_to(v, (n, 7)) @ matrix, probes)
    mean = np.asarray(traces.mean(axis=1))
    assert traces.shape[0] == n and abs(mean.mean() - jnp.trace(matrix)) <= 3 * mean.std() / n**0.5 + 1e-12
    within = 0 if name == "exact" else np.mean(traces.var(axis=1, ddof=1)) / traces.shape[1]
    np.testing.assert_allclose(mean.var(), within, rtol=0.1, atol=1e-20)


def test_hutchinson_shrinks_as_the_root_of_the_probes():
    """Integrated along the flow, one data point in 512 rows with their own probes; the standard error says the same."""
    x0 = jnp.broadcast_to(mixture().draw(jax.random.key(3), 1), (512, 3))
    truth, errors, counts = log_density(x0[:1], *map(float, FLOW(jnp.asarray(LEAST)))), [], np.array([2, 8, 32])
    for n in map(int, counts):
        got = walk(x0, steps=32, divergence=likelihood.hutchinson(n), key=jax.random.key(n))
        errors.append(np.sqrt(np.mean((got.nats - truth) ** 2)))
        assert abs(np.mean(got.nats) - truth[0]) < 3 * errors[-1] / 512**0.5
        np.testing.assert_allclose(np.mean(got.standard_error**2), errors[-1] ** 2, rtol=0.25)
    np.testing.assert_allclose(np.polyfit(np.log(counts), np.log(errors), 1)[0], -0.5, atol=0.1)


def test_hutch_plus_plus_wins_at_low_rank_for_equal_products():
    variance = jnp.asarray([1.0, 0.5] + [0.0] * 10)  # the data lie in a plane
    axes, _ = jnp.linalg.qr(jax.random.normal(KEY(), (12, 12)))
    flat = analytic.gaussian(0 * variance, variance).denoise(FLOW)
    turned = lambda xt, t, cond: (flat(xt[:, :, 0] @ axes, t) @ axes.T)[:, :, None]  # noqa: E731
    x0 = (jax.random.normal(jax.random.key(1), (8, 12)) * jnp.sqrt(variance)[None] @ axes.T)[:, :, None]
    world = analytic.World(None, lambda schedule: turned, 0 * variance, variance)
    rows = likelihood.hutch_plus_plus(9), likelihood.hutchinson(9), EXACT
    plus, one, exact = (walk(x0, world=world, steps=8, divergence=row, key=KEY()).nats for row in rows)
    assert np.abs(plus - exact).max() < 1e-9 < 0.1 < np.abs(one - exact).max()


@pytest.mark.parametrize("schedule, each", [(schedules.linear(), ()), (SHORT, (256,)), (FLOW, (256, 1))])
def test_bounds_are_their_formulas_and_know_their_error(schedule, each):
    """On one grid, one per row, one per element.  An error is what shrinking towards 0 costs, and the noise left."""
    v, x0 = 0.5, np.linspace(-2, 2, 256)
    denoise = analytic.gaussian(jnp.zeros(1), jnp.asarray([v])).denoise(schedule)
    snr = np.exp(np.asarray(log_snr(schedule, ts := even_in_log_snr(schedule, 12, last=0.3))))
    fine = np.geomspace(snr[0], snr[-1], 4001)
    error = lambda snr: (x0**2 + snr[:, None] * v**2) / (1 + snr[:, None] * v) ** 2  # noqa: E731
    ends = -0.5 * snr[0] * x0**2 - 0.5 * np.log(2 * np.pi / snr[-1]) - 0.5
    costs = 0.5 * np.diff(snr) @ error(snr[:-1]), np.trapezoid(0.5 * error(fine), fine, axis=0)
    ts = jnp.broadcast_to(ts.reshape(-1, *(1,) * len(each)), (13, *each))
    calls = partial(likelihood.elbo, ts=ts, draws=32), partial(likelihood.elbo_continuous, draws=64, least=0.3)
    for call, cost in zip(calls, costs, strict=True):
        got = jax.jit(partial(call, denoise=denoise, schedule=schedule))(KEY(), x0=jnp.asarray(x0)[:, None])
        off, variance = got.nats - (ends - cost), got.standard_error**2
        assert abs(off.sum()) < 3 * np.sqrt(variance.sum()) and 0.75 < (off**2).sum() / variance.sum() < 1.33


def test_bounds_stay_below_the_entropy_and_reach_it_as_the_steps_shrink():
    schedule, x0 = schedules.cosine(), mixture(2).draw(jax.random.key(1), 256)
    given = {"denoise": mixture(2).denoise(schedule), "schedule": schedule}
    calls = [partial(likelihood.elbo, ts=even_in_log_snr(schedule, n), draws=4) for n in (8, 64, 512)]
    calls.append(partial(likelihood.elbo_continuous, draws=128))
    off = log_density(x0) - np.stack([jax.jit(partial(call, **given))(KEY(), x0=x0).nats for call in calls])
    gaps, slack = off.mean(axis=1), 2 * off.std(axis=1) / 256**0.5
    assert (gaps > -slack).all() and gaps[0] > gaps[1] > 6 * gaps[2] > gaps[3] and abs(gaps[3]) < 0.02 + slack[3]


def test_levels_are_bounded_by_their_own_law():
    """Four levels of unequal weight in one dimension, decoded where they overlap: never above the truth, and near."""
    schedule, p, gaps = schedules.linear(), np.array([0.1, 0.2, 0.3, 0.4]), []
    x0, decoder = dequantization.place(jnp.arange(4)[:, None], 0.5, 4), dequantization.decoder_nats(4)
    world = analytic.mixture(x0, jnp.zeros((4, 1)), jnp.asarray(p))
    given = {"denoise": world.denoise(schedule), "schedule": schedule, "draws": 512, "reconstruction": decoder}
    for ts in (even_in_log_snr(schedule, steps, last=0.15) for steps in (4, 16, 128)):
        got = jax.jit(partial(likelihood.elbo, ts=ts, **given))(KEY(), x0=x0)
        gaps.append(p @ (np.log(p) - got.nats))
        assert gaps[-1] > -2 * np.sqrt(p**2 @ got.standard_error**2)
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.1
    likely = NORMAL.pdf(xt := x0[::-1] + 0.1, 0.8 * x0.T, 0.5)
    got = np.exp(decoder(xt, x0, jnp.asarray(0.8), jnp.asarray(0.5)))
    np.testing.assert_allclose(got, np.diag(likely) / likely.sum(axis=1), rtol=1e-9)


@pytest.mark.parametrize("low, high, bits", [(-1.0, 1.0, 7), (0.0, 1.0, 8), (0.0, 256.0, 0)])
def test_uniform_bytes_take_eight_bits(low, high, bits):
    k, cells = jax.random.randint(KEY(), (5, 3, 2), 0, 256), {"levels": 256, "low": low, "high": high}
    x0, offset = dequantization.uniform(jax.random.key(1), k, **cells)
    u, nats = (x0 - low) / (high - low) * 256 - k, jnp.full(5, -6 * np.log(high - low))
    assert offset == bits and ((-1e-9 <= u) & (u < 1)).all() and 0.2 < u.std() < 0.4
    np.testing.assert_allclose(bits_per_dim(nats, 6, offset=offset), 8, rtol=1e-12)
    _, log_q = dequantization.variational(KEY(), k, lambda key, k: (u, jnp.zeros(5)), **cells)
    np.testing.assert_allclose(bits_per_dim(nats - log_q, 6), 8, rtol=1e-12)


def test_dequantised_likelihood_stays_below_the_levels_own():
    """A cell's mass is known; uniform noise gives less of it, and noise from the density itself gives all of it."""
    cells, world = {"levels": 8, "low": -2.0, "high": 2.0}, analytic.gaussian(jnp.zeros(1), jnp.asarray([0.25]))
    k, edges, (alpha, sigma) = jnp.tile(jnp.arange(8), 400)[:, None], jnp.linspace(-2, 2, 9), FLOW(jnp.asarray(LEAST))
    std = jnp.sqrt(alpha**2 * 0.25 + sigma**2)
    truth = jnp.log(jnp.diff(below := NORMAL.cdf(edges / std)))

    def from_the_density(key, k):
        x = std * NORMAL.ppf(below[k] + jax.random.uniform(key, k.shape) * jnp.diff(below)[k])
        return 2 * (x - edges[k]), (NORMAL.logpdf(x, scale=std) - jnp.log(2) - truth[k])[:, 0]

    x0, offset = dequantization.uniform(KEY(), k, **cells)
    excess = bits_per_dim(walk(x0, world=world).nats, 1, offset=offset).reshape(400, 8) + truth[None] / np.log(2)
    assert (excess.mean(0) > -2 * excess.std(0) / 20).all() and 0.01 < excess.mean(0) @ jnp.diff(below) < 0.2
    x0, log_q = dequantization.variational(jax.random.key(1), k, from_the_density, **cells)
    np.testing.assert_allclose(walk(x0, world=world).nats - log_q, truth[k[:, 0]], atol=1e-4)


CALLS = {name: partial(likelihood.ode, steps=8, divergence=row()) for name, row in DIVERGENCES.items()}
CALLS["elbo"] = lambda *a, key, cond: likelihood.elbo(key, *a, ts=jnp.linspace(1.0, 0.1, 4), draws=2, cond=cond)
CALLS["elbo_continuous"] = lambda *a, key, cond: likelihood.elbo_continuous(key, *a, draws=4, cond=cond)


@pytest.mark.parametrize("name", CALLS)
def test_rows_are_alone_and_gradients_are_slopes(name):
    exact, x0, axis = mixture().denoise(FLOW), mixture().draw(jax.random.key(1), 3), jnp.eye(3)[:1]

    def nats(scale, at):
        denoise = lambda xt, t, cond: scale * cond[:, None] * exact(xt, t) * axis  # noqa: E731
        got = CALLS[name](denoise, FLOW, x0[at], cond=jnp.linspace(0.8, 1, 3)[at], key=row_keys(KEY(), 3)[at])
        return got.nats.sum(), jnp.stack(jax.tree.leaves(got))

    call = jax.jit(jax.value_and_grad(nats, has_aux=True))
    ((_, there), slope), ((_, here), _) = (call(0.9, jnp.asarray(at)) for at in ([0, 1, 2], [1, 0, 0]))
    np.testing.assert_allclose(here[:, 0], there[:, 1], rtol=1e-9)
    above, below = (call(0.9 + by, jnp.arange(3))[0][0] for by in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize("words, call", [
    ("even", lambda x: walk(x, steps=5)),
    ("got no key", lambda x: walk(x, divergence=likelihood.hutchinson())),
    ("at least 2", lambda x: likelihood.hutchinson(1)),
    ("6, 9, 12", lambda x: likelihood.hutch_plus_plus(8)),
    ("between the data", lambda x: walk(x, least=0.0)),
    ("must fall", lambda x: likelihood.elbo(KEY(), FLOW, FLOW, x, ts=jnp.asarray([0.5, 0.6]), draws=2)),
    ("stop above 0", lambda x: likelihood.elbo(KEY(), FLOW, FLOW, x, ts=jnp.asarray([1.0, 0.0]), draws=2)),
    ("even number", lambda x: likelihood.elbo_continuous(KEY(), FLOW, FLOW, x, draws=3)),
    ("levels", lambda x: dequantization.place(jnp.asarray([0, 4]), 0.5, 4)),
])  # fmt: skip
def test_bad_input_is_refused_in_a_sentence(words, call):
    with pytest.raises(ValueError, match=words):
        call(jnp.zeros((2, 3)))

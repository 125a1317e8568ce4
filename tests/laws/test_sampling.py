"""The loop: one compiled program, rows that own their key and their grid, padding, records, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import grids, guidance, sampling
from diffjax.diffusion.solvers import SOLVERS
from diffjax.testbed import analytic
from tests.laws import exact

WORLD = analytic.mixture(jnp.asarray([[-1.0], [1.0]]), jnp.asarray([[0.1], [0.3]]), jnp.asarray([0.5, 0.5]))
LINEAR = sorted(set(SOLVERS) - {"rk45"})  # rk45's error control is the row's own too, but it stops at a tolerance


def solver_of(case, **options):
    process = exact.process_of("linear")
    return process, WORLD.denoise(process.schedule), SOLVERS[case](process, **options)


@pytest.mark.parametrize("case", SOLVERS)
def test_a_row_owns_its_key_and_its_grid(case):
    """Rows walked together, each on its own grid, end where they end alone."""
    process, denoise, solver = solver_of(case)
    ts = jnp.stack([grids.pad(grids.grid(5), 9), grids.grid(8), grids.pad(grids.grid(6, start=0.7), 9)], axis=1)
    keys, x = sampling.row_keys(jax.random.key(3), 3), jnp.asarray([[0.3], [-0.5], [0.8]])
    run = jax.jit(lambda k, ts, x: sampling.sample(k, denoise, solver, ts=ts, x=x))
    together = run(keys, ts, x)
    with jax.debug_key_reuse(False):
        for i in range(3):
            alone = run(keys[i : i + 1], ts[:, i], x[i : i + 1])
            np.testing.assert_allclose(together[i], alone[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("case", LINEAR)
def test_padding_changes_nothing_and_compiles_nothing(case):
    """Any number of steps up to the longest, any seed: one program, traced once, that makes no idle call."""
    (_, exactly, solver), traces, calls = solver_of(case), [], []

    def denoise(xt, t, cond=None):
        traces.append(1)
        jax.debug.callback(lambda: calls.append(1))
        return exactly(xt, t)

    run = jax.jit(lambda k, ts, x: sampling.sample(k, denoise, solver, ts=ts, x=x, padded=True))
    x, made, sizes = jnp.asarray([[0.3], [-0.5]]), [], (11, 12, 13)
    with jax.debug_key_reuse(False):
        for steps in sizes:
            calls.clear()
            keys, ts = sampling.row_keys(jax.random.key(steps), 2), grids.grid(steps)
            padded = run(keys, grids.pad(ts, 14), x)
            jax.effects_barrier()
            made.append(len(calls))
            if steps == sizes[0]:
                plain = jax.jit(lambda k, ts, x: sampling.sample(k, exactly, solver, ts=ts, x=x))(keys, ts, x)
                np.testing.assert_allclose(padded, plain, rtol=1e-9, atol=1e-12)
                assert len(traces) <= 2
                first = len(traces)
    assert len(traces) == first
    assert made[2] - made[1] == made[1] - made[0] > 0  # so many calls for each step, and none for padding


@pytest.mark.parametrize("case, options", [*((case, {}) for case in SOLVERS), ("heun", {"churn": 20.0})])
def test_padding_moves_nothing(case, options):
    """The calls that move are as many, and in the same places, on a grid and on the same grid padded."""
    _, _, solver = solver_of(case, **options)
    moves = jax.jit(lambda ts: solver.plan(ts).moves)
    plain, padded = moves(grids.grid(12)), moves(grids.pad(grids.grid(12), 20))
    np.testing.assert_array_equal(padded[: len(plain)], plain)
    assert not np.asarray(padded)[len(plain) :].any()


@pytest.mark.parametrize("case", SOLVERS)
def test_the_network_appears_once_in_the_program(case):
    """Whatever the order of the solver and the number of steps; rk45 has one more call, onto data."""
    process, calls = exact.process_of("linear"), []
    solver = SOLVERS[case](process)

    def lowered(steps):
        calls.clear()

        def denoise(xt, t, cond):
            calls.append(t.shape)
            return 0.5 * xt

        def draw(k, ts):
            return sampling.generate(k, denoise, solver, process=process, ts=ts, like=jnp.zeros((4, 2)))

        text = jax.jit(draw).lower(jax.random.key(0), grids.grid(steps)).as_text()
        return len(text), len(calls)

    (short, calls_10), (long, calls_1000) = lowered(10), lowered(1000)
    assert calls_10 == calls_1000 <= 2 * (2 if case == "rk45" else 1)  # a scan is traced twice at most
    assert long <= 1.05 * short + 200_000  # index tables of the grid are printed as constants


KNOBS = [("ddim", "eta", (0.3, 0.9)), ("heun", "churn", (5.0, 20.0)), ("dpmpp_2m_sde", "eta", (0.5, 1.0))]
KNOBS += [("predictor_corrector", "snr", (0.1, 0.2)), ("annealed_langevin", "size", (0.1, 0.2))]


@pytest.mark.parametrize("case, knob, values", KNOBS)
def test_knobs_and_guidance_are_traced(case, knob, values):
    process, traces = exact.process_of("linear"), []

    @jax.jit
    def run(key, knob_value, scale):
        traces.append(1)
        denoise = guidance.extrapolate(lambda xt, t, c: 0.9 * xt, WORLD.denoise(process.schedule), scale)
        solver = SOLVERS[case](process, **{knob: knob_value})
        return sampling.sample(key, denoise, solver, ts=grids.grid(8), x=jnp.asarray([[0.3], [0.4]]))

    with jax.debug_key_reuse(False):
        for value in values:
            keys = sampling.row_keys(jax.random.key(0), 2)
            y = run(keys, value, jnp.asarray([1.0, 2.0]))
            denoise = guidance.extrapolate(
                lambda xt, t, c: 0.9 * xt, WORLD.denoise(process.schedule), jnp.asarray([1.0, 2.0])
            )
            solver = SOLVERS[case](process, **{knob: value})
            plain = jax.jit(lambda k, x, d=denoise, s=solver: sampling.sample(k, d, s, ts=grids.grid(8), x=x))(
                keys, jnp.asarray([[0.3], [0.4]])
            )
            np.testing.assert_allclose(y, plain, rtol=1e-6, atol=1e-8)
    assert len(traces) == 1


@pytest.mark.parametrize("case", ["ancestral", "ddim", "heun", "dpmpp_2m", "unipc"])
def test_elements_may_have_grids_of_their_own(case):
    """A column that waits at pure noise and one that goes ahead each end as if they had walked alone."""
    process, _, solver = solver_of(case)
    mean, variance = jnp.asarray([0.5, -1.0]), jnp.asarray([0.2, 0.4])
    walk = grids.grid(6)
    ahead = jnp.concatenate([walk, jnp.zeros(6)])
    behind = jnp.concatenate([jnp.ones(6), walk])
    ts = jnp.stack([ahead, behind], axis=-1)[:, None, :]  # [points, 1, 2]
    x = jnp.asarray([[0.3, -0.4], [1.2, 0.1]])

    def separate(xt, t, cond=None):  # independent coordinates: the exact denoiser works element by element
        alpha, sigma = process.schedule(t)
        shrink = alpha * variance[None] / (alpha**2 * variance[None] + sigma**2 + 1e-300)
        return mean[None] + shrink * (xt - alpha * mean[None])

    keys = sampling.row_keys(jax.random.key(0), 2)
    y = jax.jit(lambda x: sampling.sample(keys, separate, solver, ts=ts, x=x))(x)
    if case == "ancestral":  # its noise depends on the call: moments only
        assert jnp.isfinite(y).all()
        return

    @jax.jit
    def by_itself(mean, variance, x):
        denoise = analytic.gaussian(mean, variance).denoise(process.schedule)
        return sampling.sample(keys, denoise, solver, ts=walk, x=x)

    for i in range(2):
        alone = by_itself(mean[i : i + 1], variance[i : i + 1], x[:, i : i + 1])
        np.testing.assert_allclose(y[:, i : i + 1], alone, rtol=1e-6, atol=1e-8)


def test_the_record_is_the_trajectory():
    process, denoise, solver = solver_of("ddim")
    keys, x, ts = sampling.row_keys(jax.random.key(0), 2), jnp.asarray([[0.3], [-0.5]]), grids.grid(6)
    end, xs = sampling.walk(keys, denoise, solver, ts=ts, x=x, record=lambda x: x)
    assert xs.shape == (6, 2, 1)
    np.testing.assert_array_equal(xs[-1], end)
    shorter = sampling.sample(keys, denoise, solver, ts=ts[:4], x=x)
    np.testing.assert_allclose(xs[2], shorter, rtol=1e-9)
    with pytest.raises(ValueError, match="padded"):
        sampling.walk(keys, denoise, solver, ts=ts, x=x, record=lambda x: x, padded=True)


def test_a_walk_is_differentiable():
    process, denoise, solver = solver_of("unipc")
    end = lambda x: sampling.sample(jax.random.key(0), denoise, solver, ts=grids.grid(6), x=x).sum()  # noqa: E731
    x, d = jnp.asarray([[0.3]]), 1e-6
    np.testing.assert_allclose(jax.grad(end)(x)[0, 0], (end(x + d) - end(x - d)) / (2 * d), rtol=1e-6)


def test_edit_begins_at_noised_data():
    """From a low level little is changed; from pure noise everything."""
    process, denoise, solver = solver_of("ddim")
    x0 = jnp.full((2000, 1), 0.9)
    near, far = (
        sampling.edit(
            sampling.row_keys(jax.random.key(0), 2000),
            denoise,
            solver,
            process=process,
            ts=grids.grid(30, start=t),
            x0=x0,
        )
        for t in (0.15, 1.0)
    )
    assert float(jnp.abs(near - x0).mean()) < 0.4 and float((near > 0).mean()) > 0.9
    assert float((far > 0).mean()) == pytest.approx(0.5, abs=0.05)


def test_a_nonfinite_denoiser_is_found():
    process, denoise, solver = solver_of("heun")

    def broken(xt, t, cond=None):
        return jnp.where((t < 0.5)[:, None] & (xt > 0), jnp.nan, denoise(xt, t))

    x, ts = jnp.asarray([[3.0], [-3.0]]), grids.grid(10)
    with pytest.raises(
        FloatingPointError, match=r"the denoiser's output is not finite in call 12 of 20, at t = .*rows \[0\]"
    ):
        sampling.find_nonfinite(jax.random.key(0), broken, solver, ts=ts, x=x)
    sampling.find_nonfinite(jax.random.key(0), denoise, solver, ts=ts, x=x)


@pytest.mark.parametrize("ts, sentence", [([0.2, 0.8], "fall"), ([1.5, 0.0], r"\[0, 1\]"), ([1.0], "at least 2 times")])
def test_a_grid_that_does_not_fall_is_refused(ts, sentence):
    process, denoise, solver = solver_of("ddim")
    with pytest.raises(ValueError, match=sentence):
        sampling.sample(jax.random.key(0), denoise, solver, ts=jnp.asarray(ts), x=jnp.zeros((2, 1)))

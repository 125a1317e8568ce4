"""Every solver on every schedule, on worlds whose denoiser and law are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import analytic, sampling, times
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.schedules import SCHEDULES, ends_in_pure_noise
from diffjax.diffusion.solvers import DETERMINISTIC, SOLVERS
from diffjax.diffusion.weights import WEIGHTS

with jax.enable_x64(True):
    MEAN, VARIANCE = jnp.asarray([0.7, -0.4]), jnp.asarray([0.3, 1.6])
CASES = {name: (row, {}) for name, row in SOLVERS.items()} | {"ddim_half": (SOLVERS["ddim"], {"eta": 0.5})}
# Euler-Maruyama ends on the SDE's own noise, not on the estimate, and its explicit step is unstable on a coarse grid.
INEXACT = {"euler_maruyama"}


def process_of(name):
    return gaussian(SCHEDULES[name](), PARAMETERIZATIONS["x0"](), WEIGHTS["x0"]())


def well_posed(case, name):
    return not (case == "euler_maruyama" and ends_in_pure_noise(SCHEDULES[name]()))


def pairs(keep=lambda case: True):
    return pytest.mark.parametrize(
        "case, name", [(c, s) for c in CASES for s in SCHEDULES if keep(c) and well_posed(c, s)]
    )


def run(case, process, world, x, ts, seed=1):
    solver, options = CASES[case]
    denoise = world.denoise(process.schedule)
    rule = solver(process, **options)
    keys = sampling.row_keys(jax.random.key(seed), len(x))
    return jax.jit(lambda k, x: sampling.sample(k, denoise, rule, ts=ts, x=x))(keys, x)


@pairs()
def test_gaussian_data_is_hit_in_mean_and_variance(case, name):
    process, world, n = process_of(name), analytic.gaussian(MEAN, VARIANCE), 20_000
    x = process.prior(jax.random.key(0), jnp.zeros((n, 2)), jnp.ones(()))
    x = (x - x.mean(0)[None]) / x.std(0)[None] * process.schedule(jnp.ones(()))[1]  # its own sampling error taken out
    samples = run(case, process, world, x, times.grid(250))
    # What is allowed: the prior's bias where alpha(1) > 0, first order in 1/250, and four standard errors.
    np.testing.assert_allclose(samples.mean(0), MEAN, atol=0.05)
    np.testing.assert_allclose(samples.var(0) / VARIANCE, 1, atol=0.10)


@pairs(lambda case: case not in INEXACT)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_point_mass_is_hit_exactly(case, name, steps):
    process, world = process_of(name), analytic.point(jnp.asarray([2.0, -3.0]))
    x = process.prior(jax.random.key(0), jnp.zeros((4, 2)), jnp.ones(()))
    samples = run(case, process, world, x, times.grid(steps))
    np.testing.assert_allclose(samples, jnp.broadcast_to(jnp.asarray([2.0, -3.0]), (4, 2)), rtol=1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine", "edm", "flow"])
@pytest.mark.parametrize("case", [c for c in CASES if c not in INEXACT])
def test_a_mixture_is_hit_in_law(case, name):
    """Both modes, with their weights and widths, by the distance between distribution functions (Kolmogorov)."""
    process, n = process_of(name), 4000
    world = analytic.mixture(jnp.asarray([[-1.5], [1.0]]), jnp.asarray([[0.05], [0.2]]), jnp.asarray([0.3, 0.7]))
    x = process.prior(jax.random.key(0), jnp.zeros((n, 1)), jnp.ones(()))
    samples = np.sort(run(case, process, world, x, times.grid(200))[:, 0])
    exact = np.sort(world.draw(jax.random.key(5), 100_000)[:, 0])
    here = np.searchsorted(exact, samples) / len(exact)
    assert np.abs(here - (np.arange(n) + 0.5) / n).max() < 1.63 / n**0.5 + 0.02  # 99 % band, and the solver's bias


def order(case, name, *, counts=(128, 256, 512), interval=(0.8, 0.2)):
    """The fitted slope of the error at the end of an interval inside (0, 1) against the step size."""
    process, world = process_of(name), analytic.gaussian(MEAN, VARIANCE)
    (start, stop), ends = map(jnp.asarray, interval), dict(start=interval[0], stop=interval[1])
    x = process.schedule(start)[1] * jax.random.normal(jax.random.key(0), (16, 2)) + MEAN[None]
    exact = analytic.gaussian_flow(world, process.schedule, x, t=start, s=stop)
    errors = [float(jnp.abs(run(case, process, world, x, times.grid(n, **ends)) - exact).max()) for n in counts]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp_2m": 2}


@pytest.mark.parametrize("name", [s for s in SCHEDULES if s != "discrete"])  # a table is not smooth between its knots
@pytest.mark.parametrize("case", ORDERS)
def test_order_of_convergence_on_the_ode(case, name):
    assert order(case, name) == pytest.approx(ORDERS[case], abs=0.1 if ORDERS[case] == 1 else 0.15)


def test_every_deterministic_row_has_a_measured_order():
    assert {"ddim", *DETERMINISTIC} == set(ORDERS)


@pytest.mark.parametrize("name", SCHEDULES)
def test_euler_is_ddim_without_noise(name):
    process = process_of(name)
    world = analytic.mixture(jnp.asarray([[-1.0], [1.0]]), jnp.asarray([[0.1], [0.3]]), jnp.asarray([0.5, 0.5]))
    x = process.prior(jax.random.key(0), jnp.zeros((8, 1)), jnp.ones(()))
    one, two = (run(case, process, world, x, times.grid(9)) for case in ("euler", "ddim"))
    np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_with_all_its_noise_is_ancestral(name):
    process, x = process_of(name), jax.random.normal(jax.random.key(0), (8, 2))
    world = analytic.gaussian(MEAN, VARIANCE)
    keys = sampling.row_keys(jax.random.key(1), 8)
    one, two = (
        sampling.sample(keys, world.denoise(process.schedule), rule, ts=times.grid(9), x=x)
        for rule in (SOLVERS["ancestral"](process), SOLVERS["ddim"](process, eta=1.0))
    )
    np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_a_row_does_not_depend_on_its_batch(case):
    process = process_of("linear")
    world = analytic.mixture(jnp.asarray([[-1.0], [1.0]]), jnp.asarray([[0.1], [0.3]]), jnp.asarray([0.5, 0.5]))
    denoise, rule = world.denoise(process.schedule), CASES[case][0](process, **CASES[case][1])

    def draw(n):
        keys = sampling.row_keys(jax.random.key(3), n)
        return sampling.generate(keys, denoise, rule, process=process, ts=times.grid(6), like=jnp.zeros((n, 1)))

    np.testing.assert_allclose(draw(3), draw(7)[:3], rtol=1e-9)


@pytest.mark.parametrize("case", sorted(DETERMINISTIC) + ["ddim"])
def test_a_deterministic_rule_draws_no_noise(case):
    process, world = process_of("cosine"), analytic.gaussian(MEAN, VARIANCE)
    x = jax.random.normal(jax.random.key(0), (4, 2))
    np.testing.assert_array_equal(*(run(case, process, world, x, times.grid(5), seed=seed) for seed in (1, 2)))
    denoise, rule = world.denoise(process.schedule), CASES[case][0](process)
    program = jax.make_jaxpr(lambda k: sampling.sample(k, denoise, rule, ts=times.grid(5), x=x))(jax.random.key(0))
    assert "random_bits" not in str(program)


@pytest.mark.parametrize("case", sorted(set(CASES) - set(DETERMINISTIC) - {"ddim"}))
def test_a_stochastic_rule_draws_noise(case):
    process, world = process_of("linear"), analytic.gaussian(MEAN, VARIANCE)
    x = jax.random.normal(jax.random.key(0), (4, 2))
    one, two = (run(case, process, world, x, times.grid(5), seed=seed) for seed in (1, 2))
    assert (one != two).all()


def test_ill_posed_pairs_are_refused():
    for name in SCHEDULES:
        if ends_in_pure_noise(SCHEDULES[name]()):
            with pytest.raises(ValueError, match="alpha"):
                SOLVERS["euler_maruyama"](process_of(name))
    with pytest.raises(ValueError, match="eta must lie in"):
        SOLVERS["ddim"](process_of("linear"), eta=1.5)


@pytest.mark.parametrize("case", CASES)
def test_one_compiled_loop(case):
    """The network is traced once for each call in a step, whatever the number of steps; the program does not grow."""
    process, calls = process_of("linear"), []
    rule = CASES[case][0](process, **CASES[case][1])

    def lowered(steps):
        calls.clear()

        def denoise(xt, t, cond):
            calls.append(t.shape)
            return 0.5 * xt

        def draw(k):
            return sampling.generate(k, denoise, rule, process=process, ts=times.grid(steps), like=jnp.zeros((4, 2)))

        text = jax.jit(draw).lower(jax.random.key(0)).as_text()
        return len(text), len(calls)

    (short, calls_10), (long, calls_1000) = lowered(10), lowered(1000)
    assert calls_10 == calls_1000 <= 2 * (2 if case == "heun" else 1)
    assert long <= 1.05 * short + 20_000  # the grid itself is printed as a constant

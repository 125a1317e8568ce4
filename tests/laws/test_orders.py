"""Measured orders of convergence: deterministic solvers on the ODE, stochastic ones weakly and strongly on the SDE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import grids, sampling
from diffjax.diffusion.brownian import brownian
from diffjax.diffusion.schedules import SCHEDULES, log_snr
from diffjax.diffusion.solvers import SOLVERS, draws_noise
from diffjax.testbed import analytic
from tests.laws import exact

# What theory says, on any smooth grid.  The classical weights of ipndm, plms and pndm suppose equal steps in
# sigma / alpha: only there are they of order four.
ORDERS = {"ddim": 1, "dpm_1": 1, "euler": 1}
ORDERS |= {"heun": 2, "dpm_2": 2, "dpmpp_2m": 2, "dpmpp_2s": 2, "ipndm": 2, "plms": 2, "pndm": 2}
ORDERS |= {"deis": 3, "dpm_3": 3, "dpmpp_3m": 3, "dpmpp_3s": 3, "lms": 4, "unipc": 4}
AT_LEAST = {"deis", "dpm_3", "dpmpp_3m", "dpmpp_3s", "lms", "unipc"}
WEAK = {"ancestral": 1, "ancestral_large": 1, "euler_ancestral": 1, "euler_maruyama": 1, "reverse_diffusion": 1}
WEAK |= {"dpmpp_2m_sde": 2, "dpmpp_3m_sde": 2, "dpmpp_sde": 2, "seeds_2": 1}
SMOOTH = ["linear", "cosine", "edm", "flow"]  # a table is not smooth between its knots


def refused(case, schedule):
    return bool(exact.why_refused(case, schedule))


@pytest.mark.parametrize("case, schedule", [(c, s) for c in ORDERS for s in SMOOTH if not refused(c, s)])
def test_order_on_the_ode(case, schedule):
    measured = exact.order(exact.ode_errors(case, schedule))
    if case in AT_LEAST:  # third order and more: where the leading error is small, the next order shows
        assert measured > ORDERS[case] - 0.3
    else:
        assert measured == pytest.approx(ORDERS[case], abs=0.1 if ORDERS[case] == 1 else 0.15)


@pytest.mark.parametrize("case, order", [("unipc", 2), ("deis", 2), ("lms", 2), ("lms", 3)])
def test_order_is_an_option(case, order):
    measured = exact.order(exact.ode_errors(case, "edm", order=order))
    assert measured > order + (0.7 if case == "unipc" else -0.15)  # unipc's corrector gains one


@pytest.mark.parametrize("case", ["ipndm", "plms", "pndm"])
def test_classical_weights_are_of_high_order_where_their_steps_are_equal(case):
    """On a grid even in sigma, where the rules are Adams and Bashforth's own; two begin lower."""

    def grid(n):  # sigma of this schedule is linear in t
        return jnp.linspace(0.8, 0.2, n + 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCHEDULES, "even", lambda: lambda t: (jnp.ones_like(t), t))
        measured = exact.order(exact.ode_errors(case, "even", grid=grid))
    assert measured > {"ipndm": 1.9, "plms": 2.9, "pndm": 3.7}[case]


@pytest.mark.parametrize(
    "case, schedule", [(c, s) for c in WEAK for s in ("linear", "ve", "flow") if not refused(c, s)]
)
def test_weak_order_on_the_sde(case, schedule):
    measured = exact.order(exact.weak_errors(case, schedule), (32, 64, 128))
    assert measured > WEAK[case] - (0.1 if WEAK[case] == 1 else 0.15)


def test_every_row_has_a_measured_order_or_a_law_of_its_own():
    own = {"annealed_langevin", "predictor_corrector", "restart", "rk45"}  # tests/laws/test_solvers.py
    assert set(ORDERS) | set(WEAK) | own == set(SOLVERS)
    assert not {case for case in ORDERS if draws_noise(SOLVERS[case](exact.process_of("linear")))}


STRONG = ["ancestral", "euler_maruyama", "reverse_diffusion", "dpmpp_2m_sde", "dpmpp_sde"]


def ends_of_one_path(case, counts):
    """Where 64 rows end on one Brownian path, in so many steps; one program for all numbers of steps."""
    process, world = exact.process_of("linear"), analytic.gaussian(jnp.asarray([0.7]), jnp.asarray([0.3]))
    keys, solver = sampling.row_keys(jax.random.key(0), 64), SOLVERS[case](process)
    x = 0.2 + jax.random.normal(jax.random.key(1), (64, 1))
    noise, denoise = brownian(jax.random.key(2), process.schedule), world.denoise(process.schedule)
    run = jax.jit(lambda x, ts: sampling.sample(keys, denoise, solver, ts=ts, x=x, noise=noise, padded=True))
    return [np.asarray(run(x, grids.pad(jnp.linspace(0.8, 0.2, n + 1), counts[-1] + 1))) for n in counts]


@pytest.fixture(scope="module")
def truth():
    with jax.enable_x64(True):
        return ends_of_one_path("ancestral", [1024])[0]


@pytest.mark.parametrize("case", STRONG)
def test_strong_order_on_one_brownian_path(case, truth):
    """The error of single trajectories: every number of steps sees the same path."""
    counts = (16, 32, 64)
    errors = np.asarray([np.sqrt(np.mean((end - truth) ** 2)) for end in ends_of_one_path(case, counts)])
    assert exact.order(errors, counts) > 0.85
    assert errors[-1] < 0.04  # 64 steps and 1024 of another solver end at one place


def test_a_brownian_path_is_one_path():
    """Increments over halves make up the increment over the whole; disjoint ones are independent; all are normal."""
    schedule, like = SCHEDULES["linear"](), jnp.zeros((20_000, 1))
    noise, fresh = brownian(jax.random.key(0), schedule), jax.random.key(9)
    t, m, s = jnp.asarray([0.7, 0.4, 0.1])
    with jax.debug_key_reuse(False):
        early, late, whole = noise(fresh, t, m, like), noise(fresh, m, s, like), noise(fresh, t, s, like)
    lam = [0.5 * log_snr(schedule, a) for a in (t, m, s)]
    h, g = lam[2] - lam[1], lam[2] - lam[0]
    made = jnp.sqrt(-jnp.expm1(-2 * h)) * late + jnp.exp(-h) * jnp.sqrt(-jnp.expm1(-2 * (lam[1] - lam[0]))) * early
    np.testing.assert_allclose(whole, made / jnp.sqrt(-jnp.expm1(-2 * g)), rtol=1e-6, atol=1e-6)
    for z in (early, late, whole):
        assert float(z.mean()) == pytest.approx(0, abs=0.03) and float(z.var()) == pytest.approx(1, abs=0.04)
        assert float((z**4).mean()) == pytest.approx(3, abs=0.25)
    assert abs(np.corrcoef(early[:, 0], late[:, 0])[0, 1]) < 0.03


def test_a_rows_path_does_not_depend_on_its_batch_and_resting_noise_is_fresh():
    schedule, keys = SCHEDULES["edm"](), sampling.row_keys(jax.random.key(3), 6)
    t, s = jnp.asarray(0.7), jnp.asarray(0.2)
    with jax.debug_key_reuse(False):
        fresh, other = jax.random.key(1), jax.random.key(2)
        whole = brownian(keys, schedule)(fresh, t, s, jnp.zeros((6, 3)))
        part = brownian(keys[2:4], schedule)(other, t, s, jnp.zeros((2, 3)))
        np.testing.assert_array_equal(whole[2:4], part)
        one, two = (brownian(keys, schedule)(k, t, t, jnp.zeros((6, 3))) for k in (fresh, other))
    assert (one != two).all()

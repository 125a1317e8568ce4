"""Every solver on every schedule, on worlds whose denoiser and law are exact; each pair with one of the predictions.

Between them these are every solver with every schedule, every solver with every prediction, and every schedule with
every prediction; `make laws` runs all triples.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import grids, sampling
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS, draws_noise
from diffjax.testbed import analytic
from tests.laws import exact

PREDICTIONS = list(PARAMETERIZATIONS)
TRIPLES = [
    (case, schedule, PREDICTIONS[(i + j) % len(PREDICTIONS)])
    for i, case in enumerate(SOLVERS)
    for j, schedule in enumerate(SCHEDULES)
]


@pytest.mark.parametrize("case, schedule, prediction", TRIPLES)
def test_a_point_is_hit_exactly_and_a_gaussian_in_mean_and_variance(case, schedule, prediction):
    """One compiled program for both worlds, and for grids of 1, 7 and 200 steps."""
    if exact.why_refused(case, schedule, prediction):
        prediction = "x0"
    refusal = exact.why_refused(case, schedule, prediction)
    if refusal:
        assert "alpha(1)" in refusal and case in refusal  # refused in a sentence, before anything is compiled
        return
    for steps in (1, 7):
        assert exact.point_miss(case, schedule, prediction, steps=steps) < exact.POINT_TOLERANCE
    mean, variance = exact.gaussian_miss(case, schedule, prediction)
    assert mean < exact.MEAN_TOLERANCE
    assert variance < exact.LOOSE.get(case, exact.VARIANCE_TOLERANCE)


def test_the_triples_cover_every_pair():
    triples = set(TRIPLES)
    assert {t[:2] for t in triples} == {(c, s) for c in SOLVERS for s in SCHEDULES}
    assert {t[0::2] for t in triples} == {(c, p) for c in SOLVERS for p in PREDICTIONS}
    assert {t[1:] for t in triples} == {(s, p) for s in SCHEDULES for p in PREDICTIONS}


def run(case, schedule, world, x, ts, *, seed=1, noise=None, **options):
    process = exact.process_of(schedule)
    denoise, solver = world.denoise(process.schedule), SOLVERS[case](process, **options)
    keys = sampling.row_keys(jax.random.key(seed), len(x))
    return jax.jit(lambda k, x: sampling.sample(k, denoise, solver, ts=ts, x=x, noise=noise))(keys, x)


def two_modes():
    return analytic.mixture(jnp.asarray([[-1.5], [1.0]]), jnp.asarray([[0.05], [0.2]]), jnp.asarray([0.3, 0.7]))


# Langevin dynamics does not carry weight from mode to mode once they are apart: its own law is tested below.
@pytest.mark.parametrize("case", [c for c in SOLVERS if c != "annealed_langevin"])
def test_a_mixture_is_hit_in_law(case):
    """Both modes, with their weights and widths, by the distance between distribution functions (Kolmogorov)."""
    process, n, world = exact.process_of("linear"), 4000, two_modes()
    x = process.prior(jax.random.key(0), jnp.zeros((n, 1)), jnp.ones(()))
    samples = np.sort(run(case, "linear", world, x, grids.grid(exact.STEPS.get(case, 200)))[:, 0])
    exactly = np.sort(world.draw(jax.random.key(5), 100_000)[:, 0])
    here = np.searchsorted(exactly, samples) / len(exactly)
    assert np.abs(here - (np.arange(n) + 0.5) / n).max() < 1.63 / n**0.5 + 0.02  # 99 % band, and the solver's bias


SAME = [
    ("euler", {}, "ddim", {}),
    ("dpm_1", {}, "ddim", {}),
    ("euler_ancestral", {"eta": 0.6}, "ddim", {"eta": 0.6}),
    ("ddim", {"eta": 1.0}, "ancestral", {}),
    ("dpmpp_2m_sde", {"eta": 0.0}, "dpmpp_2m", {}),
    ("dpmpp_3m_sde", {"eta": 0.0}, "dpmpp_3m", {}),
    ("dpmpp_sde", {"eta": 0.0}, "dpmpp_2s", {}),
    ("deis", {"order": 1}, "ddim", {}),
    ("lms", {"order": 1}, "ddim", {}),
    ("heun", {"churn": 0.0}, "heun", {"churn": 1e-14}),
    ("reverse_diffusion", {}, "predictor_corrector", {"corrections": 0}),
]


@pytest.mark.parametrize("one, own, other, its", SAME, ids=lambda a: a if isinstance(a, str) else "")
@pytest.mark.parametrize("schedule", ["linear", "edm", "flow"])
def test_rows_that_are_one_rule_agree(one, own, other, its, schedule):
    x = exact.process_of(schedule).prior(jax.random.key(0), jnp.zeros((8, 1)), jnp.ones(()))
    first, second = (run(case, schedule, two_modes(), x, grids.grid(9), **o) for case, o in ((one, own), (other, its)))
    np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", ["dpmpp_3m", "unipc"])
def test_a_tapered_order_falls_towards_the_end_as_it_has_risen(case):
    process, ts = exact.process_of("linear"), grids.pad(grids.grid(6), 9)

    def used(**options):
        rows = SOLVERS[case](process, **options).plan(ts).rows
        return [np.asarray(w != 0).astype(int) for w in (rows[0] if case == "unipc" else rows).weights]

    assert np.sum(used(), axis=0).tolist() == [0, 1, 2, 2, 2, 0, 0, 0]  # past predictions in each step
    assert np.sum(used(taper=1), axis=0).tolist() == [0, 1, 2, 2, 1, 0, 0, 0]


def test_euler_is_eulers_rule():
    """x + d(alpha) x0_hat + d(sigma) eps_hat, step by step in Python."""
    process, world, x, ts = exact.process_of("flow"), two_modes(), jnp.asarray([[0.3], [-1.0]]), grids.grid(5)
    samples = run("euler", "flow", world, x, ts)
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = process.schedule(t), process.schedule(s)
        x0_hat = world.denoise(process.schedule)(x, jnp.full(2, t))
        x = x + (alpha_s - alpha_t) * x0_hat + (sigma_s - sigma_t) * (x - alpha_t * x0_hat) / sigma_t
    np.testing.assert_allclose(samples, x, rtol=1e-9, atol=1e-12)


def test_deterministic_rules_draw_no_noise_and_the_others_do():
    drawn = {case for case in SOLVERS if draws_noise(SOLVERS[case](exact.process_of("linear")))}
    quiet = {"ddim", "deis", "dpm_1", "dpm_2", "dpm_3", "dpmpp_2m", "dpmpp_2s", "dpmpp_3m", "dpmpp_3s", "euler", "heun"}
    assert set(SOLVERS) - drawn == quiet | {"ipndm", "lms", "plms", "pndm", "rk45", "unipc"}
    for case in SOLVERS:
        x = jax.random.normal(jax.random.key(0), (4, 1))
        one, two = (run(case, "linear", two_modes(), x, grids.grid(30), seed=seed) for seed in (1, 2))
        assert bool((one == two).all()) == (case not in drawn), case


@pytest.mark.parametrize(
    "case", ["ddim", "euler_maruyama", "reverse_diffusion", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde"]
)
def test_one_knob_leads_from_the_ode_to_the_sde(case):
    """The share of a sample that its start decides: all of it on the ODE, none on the SDE."""
    world, x = (
        analytic.gaussian(jnp.asarray([0.0]), jnp.asarray([1.0])),
        jax.random.normal(jax.random.key(0), (2000, 1)),
    )
    samples = [run(case, "linear", world, x, grids.grid(50), eta=eta) for eta in (0.0, 0.2, 0.5, 1.0)]
    shares = [np.corrcoef(x[:, 0], sample[:, 0])[0, 1] for sample in samples]
    assert shares[0] > 1 - 1e-9 and shares[0] > shares[1] > shares[2] > shares[3] and shares[3] < 0.1


def test_churn_raises_the_noise_and_keeps_the_law():
    world, n = analytic.gaussian(jnp.asarray([0.7]), jnp.asarray([0.3])), 20_000
    for schedule in ("edm", "linear", "cosine"):
        alpha, sigma = SCHEDULES[schedule]()(jnp.ones(()))
        x = alpha * 0.7 + jnp.sqrt(alpha**2 * 0.3 + sigma**2) * jax.random.normal(jax.random.key(0), (n, 1))
        samples = run("heun", schedule, world, x, grids.grid(60), churn=30.0)
        still = run("heun", schedule, world, x, grids.grid(60))
        correlation = np.corrcoef(samples[:, 0], still[:, 0])[0, 1]
        assert correlation < 0.3  # the noise is renewed
        assert float(samples.mean()) == pytest.approx(0.7, abs=0.02)
        assert float(samples.var()) == pytest.approx(0.3, rel=0.06)


def test_churn_stays_within_its_interval():
    x = jnp.linspace(-80, 80, 5)[:, None]
    none = run("heun", "edm", two_modes(), x, grids.grid(20), churn=20.0, churn_low=90.0, churn_high=99.0)
    np.testing.assert_allclose(none, run("heun", "edm", two_modes(), x, grids.grid(20)), rtol=1e-12)


def test_churn_raises_by_the_square_root_of_two_at_most():
    x, ts = jnp.linspace(-80, 80, 5)[:, None], grids.grid(20)
    capped = run("heun", "edm", two_modes(), x, ts, churn=20 * (np.sqrt(2) - 1))
    np.testing.assert_allclose(run("heun", "edm", two_modes(), x, ts, churn=1e6), capped, rtol=1e-9)
    assert jnp.abs(run("heun", "edm", two_modes(), x, ts, churn=19 * (np.sqrt(2) - 1)) - capped).max() > 1e-3


def test_restart_forgets_the_error_of_a_wrong_start():
    """Begun far from the law, the ODE keeps the error; going back up with noise contracts it (Xu et al. 2023)."""
    world, x = analytic.gaussian(jnp.asarray([0.0]), jnp.asarray([1.0])), 3 + jnp.zeros((4000, 1))
    ode = run("heun", "linear", world, x, grids.grid(40))
    once, often = (run("restart", "linear", world, x, grids.grid(40), low=0.05, high=0.6, repeats=r) for r in (1, 4))
    assert abs(float(ode.mean())) > 2 > 1.2 > abs(float(once.mean())) > 4 * abs(float(often.mean()))


def test_corrections_at_one_level_lead_to_its_law():
    """Begun at a wrong law, more and more corrections of the noise level approach the right one."""
    world, n = analytic.gaussian(jnp.asarray([0.7]), jnp.asarray([0.3])), 4000
    process = exact.process_of("ve")
    x = 1.5 * process.prior(jax.random.key(0), jnp.zeros((n, 1)), jnp.asarray(0.9))
    wanted = float(0.3 + process.schedule(jnp.asarray(0.89))[1] ** 2)
    wrong = [
        abs(
            float(run("predictor_corrector", "ve", world, x, jnp.asarray([0.9, 0.89]), corrections=c, snr=0.2).var())
            / wanted
            - 1
        )
        for c in (0, 8, 80)
    ]
    assert wrong[0] > 1.0 > wrong[1] > 0.1 > wrong[2]


def test_annealed_langevin_forgets_its_start_and_finds_both_modes():
    world, process = two_modes(), exact.process_of("ve")
    x = process.schedule(jnp.asarray(1.0))[1] * jax.random.uniform(jax.random.key(0), (4000, 1))  # a wrong law
    samples = run("annealed_langevin", "ve", world, x, grids.grid(100), size=0.2, per_level=20)
    assert float((samples > -0.4).mean()) == pytest.approx(0.7, abs=0.05)
    right = samples[samples > -0.4]
    assert float(right.mean()) == pytest.approx(1.0, abs=0.05) and float(right.var()) == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm", "flow"])
def test_the_adaptive_rule_keeps_its_tolerance(schedule):
    process = exact.process_of(schedule)
    world, t, s = analytic.gaussian(jnp.asarray([0.7]), jnp.asarray([0.3])), jnp.asarray(1.0), jnp.asarray(0.2)
    x = process.prior(jax.random.key(0), jnp.zeros((16, 1)), t)
    truth, errors, calls = analytic.gaussian_flow(world, process.schedule, x, t=t, s=s), [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        counted = []

        def denoise(xt, t, cond=None, counted=counted):
            jax.debug.callback(lambda: counted.append(1))
            return world.denoise(process.schedule)(xt, t)

        solver = SOLVERS["rk45"](process, tolerance=tolerance)
        y = jax.jit(
            lambda x, s=solver, d=denoise: sampling.sample(jax.random.key(0), d, s, ts=jnp.asarray([1, 0.2]), x=x)
        )(x)
        jax.effects_barrier()
        errors.append(float(jnp.abs(y - truth).max()) / float(jnp.abs(truth).max())), calls.append(len(counted))
    assert (np.asarray(errors) < [1e-2, 1e-4, 1e-6]).all(), errors
    assert calls[0] <= calls[1] < calls[2] < 60 * 6


def test_below_its_least_time_the_adaptive_rule_takes_one_ddim_step():
    x, tight = jnp.linspace(-1, 1, 5)[:, None], {"tolerance": 1e-10, "least": 0.3}
    above = run("rk45", "flow", two_modes(), x, jnp.asarray([1, 0.3]), **tight)
    below = run("ddim", "flow", two_modes(), above, jnp.asarray([0.3, 0.2]))
    np.testing.assert_allclose(run("rk45", "flow", two_modes(), x, jnp.asarray([1, 0.2]), **tight), below, rtol=1e-7)


def test_a_row_of_the_adaptive_rule_that_cannot_arrive_is_not_a_number():
    x = jnp.ones((2, 1))
    assert jnp.isnan(run("rk45", "linear", two_modes(), x, grids.grid(1), tolerance=1e-9, most=20)).all()


BAD = [
    ("ddim", {"eta": 1.5}, "eta must lie in"),
    ("heun", {"churn": -1.0}, "churn must be at least 0"),
    ("unipc", {"order": 4}, "order 1, 2 or 3"),
    ("deis", {"order": 0}, "at least 1"),
    ("restart", {"low": 0.5, "high": 0.2}, "low < high"),
    ("predictor_corrector", {"corrections": -1}, "at least 0"),
    ("annealed_langevin", {"per_level": 0}, "at least 1"),
    ("rk45", {"tolerance": 0.0}, "must be positive"),
]


@pytest.mark.parametrize("case, options, sentence", BAD, ids=[b[0] for b in BAD])
def test_impossible_options_are_refused(case, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SOLVERS[case](exact.process_of("linear"), **options)

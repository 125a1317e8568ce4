"""Our rows beside diffusers' schedulers: tables, grids and every state of a trajectory; and where the two must differ.

Each case runs a scheduler's own loop on the exact denoiser of a mixture, and ours on the scheduler's own grid.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import peers
import pytest
import torch
from peers import agree, by_chain, by_ratio, by_sigma, noise_of_calls, ours, start, straight, theirs

from diffjax.diffusion import gaussian, grids, parameterizations, schedules, weights
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.types import rows
from diffjax.testbed import analytic

STEPS = 10


class Case(NamedTuple):
    """A row of ours, and what it is called there."""

    row: str
    options: dict
    scheduler: str
    set_up: dict
    step: dict = {}
    ends: slice | list = slice(None)  # which of its calls end an interval of the grid
    calls: int = STEPS  # what it is asked for
    onto_data: bool = True  # or all states but the last: theirs extrapolates eps_hat there too, ours takes x0_hat


def name_of(case):
    if not isinstance(case, Case):
        return None
    words = [f"{key}={value}" for part in (case.set_up, case.step) for key, value in part.items()]
    ours = " ".join([case.row, *map(str, case.options.values())])
    return f"{ours} = {' '.join([case.scheduler.removesuffix('Scheduler'), *words])}"


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=name_of)


def ready(name, steps=STEPS, **set_up):
    scheduler = peers.scheduler(name, **set_up)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


# Trajectories

PLMS, PNDM = [*range(1, 11)], [3, 7, 11, *range(12, 19)]


@each(
    [
        Case("ancestral", {}, "DDPMScheduler", dict(variance_type="fixed_small")),
        Case("ancestral", {}, "DDPMScheduler", dict(variance_type="fixed_small_log")),
        Case("ancestral", {}, "DDPMScheduler", dict(timestep_spacing="trailing")),
        Case("ancestral", {}, "DDPMScheduler", dict(beta_schedule="squaredcos_cap_v2")),
        Case("ancestral_large", {}, "DDPMScheduler", dict(variance_type="fixed_large")),
        *[Case("ddim", dict(eta=eta), "DDIMScheduler", {}, dict(eta=eta)) for eta in (0.0, 0.5, 1.0)],
        Case("ddim", dict(eta=0.5), "DDIMScheduler", dict(timestep_spacing="trailing"), dict(eta=0.5)),
        Case("plms", {}, "PNDMScheduler", dict(skip_prk_steps=True, set_alpha_to_one=True), ends=PLMS, onto_data=False),
        Case("pndm", {}, "PNDMScheduler", dict(set_alpha_to_one=True), ends=PNDM, onto_data=False),
    ]
)
def test_along_the_whole_steps_of_a_chain(case):
    scheduler, x = ready(case.scheduler, **case.set_up), start()
    noise = noise_of_calls(STEPS, x)
    there = theirs(scheduler, x, by_chain(scheduler), kind="epsilon", noise=noise, **case.step)[case.ends]
    here = ours(case.row, peers.chain_of(scheduler), peers.times_of_calls(scheduler), x, **case.options)
    agree(name_of(case), *(states[: None if case.onto_data else -1] for states in (here, there)))


def test_a_learned_variance():
    """The network's second half mixes the logs of the two fixed variances; here by tanh x."""
    scheduler, x = ready("DDPMScheduler", variance_type="learned_range"), start()
    noise = noise_of_calls(STEPS, x)
    there = theirs(scheduler, x, by_chain(scheduler), kind="epsilon", noise=noise, beside=torch.tanh)
    chain = peers.chain_of(scheduler)
    process = gaussian.learned_variance(chain, parameterizations.eps(), weights.simple())

    def denoise(xt, t, cond):
        (alpha, sigma), x0 = (rows(a, xt) for a in chain(t)), peers.worlds()[peers.mixture].denoise(chain)(xt, t)
        return process.estimate(jnp.concatenate([(xt - alpha * x0) / sigma, jnp.tanh(xt)], axis=-1), xt, t)

    here = peers.walk(SOLVERS["ancestral"](process), denoise, peers.times_of_calls(scheduler), x)
    agree("ancestral, learned_variance = DDPM variance_type=learned_range", here, there)


MULTISTEP, SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
EDM_MULTISTEP, DEIS, UNIPC = "EDMDPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler"
X0 = dict(prediction_type="sample")
FULL_ORDER = dict(final_sigmas_type="sigma_min", lower_order_final=False)  # to the end of the grid, above data


@each(
    [
        Case("dpmpp_2m", {}, MULTISTEP, {}),
        Case("dpmpp_2m", {}, MULTISTEP, dict(timestep_spacing="trailing")),
        Case("dpmpp_2m", {}, MULTISTEP, dict(use_karras_sigmas=True)),
        Case("dpmpp_2m", {}, MULTISTEP, FULL_ORDER),
        Case("dpmpp_2m_sde", dict(eta=1.0), MULTISTEP, dict(algorithm_type="sde-dpmsolver++")),
        Case("ddim", {}, MULTISTEP, dict(solver_order=1)),
        Case("ddim", dict(eta=1.0), MULTISTEP, dict(solver_order=1, algorithm_type="sde-dpmsolver++")),
        *[Case("deis", dict(order=n), DEIS, dict(solver_order=n, lower_order_final=False)) for n in (1, 2, 3)],
    ]
)
def test_along_ratios_of_noise_to_signal(case):
    scheduler, x = ready(case.scheduler, **case.set_up, **X0), start()
    chain = peers.chain_of(scheduler)
    there = theirs(scheduler, x, by_ratio(scheduler), noise=noise_of_calls(STEPS, x))
    here = ours(case.row, chain, peers.times_of_ratios(chain, scheduler.sigmas), x, **case.options)
    agree(name_of(case), here, there)


@each(
    [
        Case("euler", {}, "EulerDiscreteScheduler", {}),
        Case("euler", {}, "EulerDiscreteScheduler", dict(use_karras_sigmas=True)),
        Case("euler_ancestral", {}, "EulerAncestralDiscreteScheduler", {}),
        Case("heun", {}, "HeunDiscreteScheduler", {}, ends=[*range(1, 18, 2), 18]),
        *[Case("lms", dict(order=n), "LMSDiscreteScheduler", {}, dict(order=n), onto_data=False) for n in range(1, 5)],
        Case("euler", {}, "EDMEulerScheduler", {}),
        Case("dpmpp_2m", {}, EDM_MULTISTEP, {}),
        Case("dpmpp_2m_sde", dict(eta=1.0), EDM_MULTISTEP, dict(algorithm_type="sde-dpmsolver++")),
    ]
)
def test_along_sigmas(case):
    scheduler = ready(case.scheduler, **case.set_up)
    sigmas = np.unique(scheduler.sigmas)[::-1]
    x, kind = start(scale=sigmas[0]), "edm" if case.scheduler.startswith("EDM") else "epsilon"
    there = theirs(scheduler, x, by_sigma(scheduler), kind=kind, noise=noise_of_calls(STEPS, x), **case.step)[case.ends]
    here = ours(case.row, straight(sigmas[0]), sigmas / sigmas[0], x, **case.options)
    agree(name_of(case), *(states[: None if case.onto_data else -1] for states in (here, there)))


@each(
    [
        Case("dpmpp_2s", {}, SINGLESTEP, dict(lower_order_final=True), calls=13),
        Case("dpmpp_3s", {}, SINGLESTEP, dict(solver_order=3, lower_order_final=True), calls=13),
        Case("dpm_2", {}, SINGLESTEP, dict(algorithm_type="dpmsolver", **FULL_ORDER), calls=12),
        Case("dpm_3", {}, SINGLESTEP, dict(algorithm_type="dpmsolver", solver_order=3, **FULL_ORDER), calls=12),
    ]
)
def test_steps_of_several_calls(case):
    """On a grid even in lambda, for theirs takes the grid's own points for the stages of a step.

    A third-order step of Lu et al. 2022a has its second stage in their rule called "heun", its last in "midpoint".
    """
    scheduler, x = ready(case.scheduler, case.calls, **case.set_up, **X0), start()
    order, chain = scheduler.config.solver_order, peers.chain_of(scheduler)
    onto_data = float(scheduler.sigmas[-1]) == 0
    sigmas = np.geomspace(scheduler.sigmas[0], scheduler.sigmas[-2], case.calls + (not onto_data))
    scheduler.sigmas = torch.as_tensor(np.append(sigmas, [0.0] * onto_data))

    def paper(i):
        if order == 3:
            scheduler.register_to_config(solver_type="heun" if scheduler.order_list[i] == 2 else "midpoint")

    ends = [*range(order - 1, case.calls, order)] + [-1] * onto_data
    there = theirs(scheduler, x, by_ratio(scheduler), before=paper)[ends]
    ts = peers.times_of_ratios(chain, np.append(sigmas[::order], [0.0] * onto_data))
    agree(name_of(case), ours(case.row, chain, ts, x), there)


@each(
    [
        Case("unipc", dict(order=1), UNIPC, dict(solver_order=1)),
        Case("unipc", dict(order=2), UNIPC, dict(solver_order=2)),
        Case("unipc", dict(order=3, taper=1), UNIPC, dict(solver_order=3)),
        Case("unipc", dict(order=2), UNIPC, dict(solver_order=2, **FULL_ORDER)),
        Case("unipc", dict(order=3), UNIPC, dict(solver_order=3, **FULL_ORDER)),
    ]
)
def test_unipc(case):
    scheduler, x = ready(case.scheduler, **case.set_up, **X0), start()
    chain = peers.chain_of(scheduler)
    here = ours(case.row, chain, peers.times_of_ratios(chain, scheduler.sigmas), x, **case.options)
    agree(name_of(case), here, theirs(scheduler, x, by_ratio(scheduler)))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_along_the_straight_line(shift):
    scheduler, x = peers.scheduler("FlowMatchEulerDiscreteScheduler", shift=shift), start()
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / STEPS, STEPS))
    there = theirs(scheduler, x, lambda i, k: (1 - scheduler.sigmas[i], scheduler.sigmas[i]), kind="velocity")
    here = ours("euler", schedules.flow(shift), grids.grid(STEPS), x)
    agree(f"euler, flow shifted by {shift} = FlowMatchEulerDiscrete shift={shift}", here, there)


# Tables and grids


@pytest.mark.parametrize(
    "schedule, set_up",
    [
        (schedules.discrete(), {}),
        (schedules.scaled_linear(), dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)),
        (schedules.cosine_betas(), dict(beta_schedule="squaredcos_cap_v2")),
    ],
    ids=["discrete", "scaled_linear", "cosine_betas"],
)
def test_a_chain(schedule, set_up, request):
    table = peers.scheduler("DDPMScheduler", **set_up).alphas_cumprod.numpy()
    alpha, sigma = map(np.asarray, schedule(jnp.arange(1, peers.T + 1) / peers.T))
    case = request.node.callspec.id
    agree(f"schedules.{case} = DDPM {set_up.get('beta_schedule', 'linear')}", alpha**2, table, tolerance=1e-12)
    np.testing.assert_allclose(sigma**2, 1 - table, rtol=1e-9)


def test_the_chain_without_terminal_signal():
    """Stretching from alpha(0) = 1 or from alpha(1 / T), as they do, is one factor; with theirs alpha(0) is over 1."""
    plain, set_up = schedules.scaled_linear(), dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    theirs = peers.scheduler("DDIMScheduler", rescale_betas_zero_snr=True, **set_up).alphas_cumprod.numpy() ** 0.5
    alpha, _ = map(np.asarray, schedules.zero_terminal_snr(plain)(jnp.arange(peers.T + 1) / peers.T))
    stretch = theirs[0] / alpha[1]
    agree("schedules.zero_terminal_snr, from alpha(1 / T) = DDIM rescale_betas_zero_snr", stretch * alpha[1:], theirs)
    assert alpha[0] == 1 < stretch * alpha[0] and np.abs(alpha[1:] - theirs).max() < 1e-4


@pytest.mark.parametrize(
    "spacing, options, steps",
    [
        *[("leading", {}, n) for n in (1, 4, 7, 10, 16, 30, 100, 999, 1000)],
        *[("leading", dict(offset=1), n) for n in (1, 7, 10, 999)],
        *[("trailing", {}, n) for n in (1, 4, 7, 10, 16, 30, 100, 999, 1000)],
        *[("linspace", {}, n) for n in (1, 4, 7, 10, 16, 30, 100, 999, 1000)],
    ],
)
def test_a_grid_of_calls(spacing, options, steps):
    """Ours ends with the step onto data, time 0, which theirs leaves to the scheduler."""
    set_up = dict(steps_offset=options["offset"]) if options else {}
    scheduler = ready("DDIMScheduler", steps, timestep_spacing=spacing, **set_up)
    here = getattr(grids, spacing)(schedules.discrete(), steps, **options)
    there = np.append((scheduler.timesteps.numpy() + 1) / peers.T, 0)
    agree(f"grids.{spacing} {options or ''} = DDIM timestep_spacing={spacing}", here, there, tolerance=1e-12)


def test_a_grid_even_in_a_root_of_sigma():
    scheduler, chain = ready(MULTISTEP, use_karras_sigmas=True), schedules.discrete()
    alpha, sigma = chain(grids.rho(chain, STEPS, least=1 / peers.T))
    agree("grids.rho = DPMSolverMultistep use_karras_sigmas", np.asarray(sigma / alpha), scheduler.sigmas.numpy())


# Where theirs is wrong: each test holds both sides against a law that needs no opinion

CURVATURE = "D2 = ", "D2 = 2 * "  # the second divided difference, and the second derivative: twice that
SIGN = "(2.0 * h) ** 2 - 0.5", "(2.0 * h) ** 2 + 0.5"  # phi_3 of the SDE, of which the sign was turned for all but 1/2
THIRD = dict(solver_order=3, solver_type="heun", lower_order_final=False)


@pytest.mark.parametrize(
    "scheduler, set_up, mends, k",
    [
        (MULTISTEP, X0, [CURVATURE], 1),
        (MULTISTEP, dict(algorithm_type="sde-dpmsolver++", **X0), [CURVATURE, SIGN], 2),
        (EDM_MULTISTEP, {}, [CURVATURE], 1),
    ],
    ids=["ode", "sde", "edm"],
)
def test_their_third_order_rule_is_of_second_order(scheduler, set_up, mends, k):
    """Where x0_hat is a parabola in lambda, whatever x is, a third-order rule is exact; theirs halves its curvature."""

    def miss(*mends):
        steps = ready(scheduler, **THIRD, **set_up)
        with peers.mended(type(steps), "multistep_dpm_solver_third_order_update", *mends):
            level, kind = (by_sigma, "edm") if scheduler.startswith("EDM") else (by_ratio, "sample")
            x, still = start(scale=float(steps.sigmas[0]) if kind == "edm" else 1.0), np.zeros((STEPS, 5, 2))
            x = theirs(steps, x, level(steps), kind=kind, world=peers.parabola, noise=still)[:-1]
        alpha = np.asarray([float(steps._sigma_to_alpha_sigma_t(sigma)[0]) for sigma in steps.sigmas[1:-1]])
        return peers.miss_of_a_parabola(x / alpha[:, None, None], -np.log(steps.sigmas[1:-1].numpy()), k)

    assert miss() > 1e-2 and miss(*mends) < 1e-9


@pytest.mark.parametrize(
    "row, options, set_up, mends",
    [
        ("dpmpp_3m", {}, {}, [CURVATURE]),
        ("dpmpp_3m", {}, FULL_ORDER, [CURVATURE]),
        ("dpmpp_3m_sde", dict(eta=1.0), dict(algorithm_type="sde-dpmsolver++"), [CURVATURE, SIGN]),
        ("deis", dict(order=2), dict(algorithm_type="dpmsolver", solver_order=2, **FULL_ORDER), []),
        ("deis", dict(order=3), dict(algorithm_type="dpmsolver", **FULL_ORDER), [CURVATURE]),
    ],
)
def test_third_order_with_that_corrected(row, options, set_up, mends):
    scheduler, x = ready(MULTISTEP, **X0 | THIRD | set_up), start()
    with peers.mended(type(scheduler), "multistep_dpm_solver_third_order_update", *mends):
        there = theirs(scheduler, x, by_ratio(scheduler), noise=noise_of_calls(STEPS, x))
    chain = peers.chain_of(scheduler)
    here = ours(row, chain, peers.times_of_ratios(chain, scheduler.sigmas), x, **options)
    words = [name_of(Case(row, options, MULTISTEP, THIRD | set_up)), *["mended"] * bool(mends)]
    agree(", ".join(words), here, there)


@pytest.mark.parametrize("name, set_up", [("DDIMScheduler", {}), ("PNDMScheduler", dict(skip_prk_steps=True))])
@pytest.mark.parametrize("spacing, steps", [("linspace", 10), ("trailing", 7)])
def test_their_chain_steps_beside_its_own_grid(name, set_up, spacing, steps):
    """From k they step to k - T // steps and call the network for the grid's next k, whether or not these are the same.

    On a point mass eps is known, (x_t - alpha_t x_0) / sigma_t, and no step of the ODE may turn it.
    """
    scheduler, x = ready(name, steps, timestep_spacing=spacing, **set_up), start()
    chain, ts = peers.chain_of(scheduler), peers.times_of_calls(scheduler)

    def turned(states):
        alpha, sigma = (np.asarray(part)[1:-1, None, None] for part in chain(jnp.asarray(ts)))
        eps = (states[:-1] - alpha * peers.POINT) / sigma
        return np.abs(eps - eps[0]).max()

    ends = slice(1, None) if name.startswith("PNDM") else slice(None)
    there = theirs(scheduler, x, by_chain(scheduler), world=peers.point, kind="epsilon")[ends]
    assert turned(there) > 1e-2
    assert turned(ours("ddim" if name.startswith("DDIM") else "plms", chain, ts, x, world=peers.point)) < 1e-9


@pytest.mark.parametrize(
    "row, name, set_up",
    [
        ("deis", DEIS, X0),  # ends on the chain's first level, above data
        ("deis", DEIS, dict(use_karras_sigmas=True, **X0)),  # and here its last step is of size 0
        ("pndm", "PNDMScheduler", {}),  # takes alpha(1 / T) for alpha(0), unless told otherwise
        ("ancestral_large", "DDPMScheduler", dict(variance_type="fixed_large", timestep_spacing="trailing")),
    ],
    ids=["DEIS", "DEIS Karras", "PNDM", "DDPM fixed_large trailing"],
)
def test_theirs_leaves_noise_on_the_sample(row, name, set_up):
    """All data is one point: a sample is that point."""
    scheduler, x = ready(name, **set_up), start()
    level, kind = (by_ratio, "sample") if name == DEIS else (by_chain, "epsilon")
    there = theirs(scheduler, x, level(scheduler), world=peers.point, kind=kind, noise=noise_of_calls(STEPS, x))[-1]
    chain = peers.chain_of(scheduler)
    if name == DEIS:
        ts = peers.times_of_ratios(chain, np.append(scheduler.sigmas[:-1], 0.0))
    else:
        ts = peers.times_of_calls(scheduler)
    here = ours(row, chain, ts, x, world=peers.point)[-1]
    assert np.abs(there - peers.POINT).max() > 1e-3
    np.testing.assert_allclose(here, np.broadcast_to(peers.POINT, x.shape), rtol=1e-9)


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EDMEulerScheduler"])
def test_their_churn_comes_after_the_call(name):
    """They ask the network at the level before the churn, and read its answer at the level after it."""
    scheduler = ready(name)
    sigmas = scheduler.sigmas.numpy()
    x, kind = start(scale=sigmas[0]), "edm" if name.startswith("EDM") else "epsilon"
    noise = noise_of_calls(2 * STEPS, x)[::2]
    there = theirs(scheduler, x, by_sigma(scheduler), world=peers.point, kind=kind, noise=noise, s_churn=5.0)[-1]
    here = ours("heun", straight(2 * sigmas[0]), sigmas / sigmas[0] / 2, x, world=peers.point, churn=5.0)[-1]
    assert np.abs(there - peers.POINT).max() > 1e-3
    np.testing.assert_allclose(here, np.broadcast_to(peers.POINT, x.shape), rtol=1e-9)


def test_their_flow_grid_is_shifted_twice_at_its_end():
    """All T steps of the chain are its own table, on which it was trained."""
    scheduler = peers.scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0)
    table = scheduler.sigmas.numpy()
    scheduler.set_timesteps(peers.T)
    _, ours = schedules.flow(3.0)(jnp.arange(peers.T, 0, -1) / peers.T)
    np.testing.assert_allclose(ours, table, rtol=1e-12)
    assert np.abs(scheduler.sigmas.numpy()[:-1] - table).max() > 1e-3


def test_the_other_variant_of_unipc_is_further_from_the_flow():
    """B(h) = h is not a row of ours: beside the exact flow of a Gaussian its error is the larger."""
    x, errors = start(), {}
    for kind in ("bh1", "bh2"):
        scheduler = ready(UNIPC, 40, solver_order=2, solver_type=kind, **X0 | FULL_ORDER)
        chain = peers.chain_of(scheduler)
        ends = [jnp.asarray(t) for t in peers.times_of_ratios(chain, scheduler.sigmas)[[0, -1]]]
        world = peers.worlds()[peers.gaussian_world]
        exact = np.asarray(analytic.gaussian_flow(world, chain, jnp.asarray(x), t=ends[0], s=ends[1]))
        there = theirs(scheduler, x, by_ratio(scheduler), world=peers.gaussian_world)[-1]
        errors[kind] = np.abs(there - exact).max()
    assert errors["bh2"] < errors["bh1"]

"""Our rows beside k-diffusion's samplers and grids, on EDM's grid of sigmas; and where the two must differ."""

import jax.numpy as jnp
import numpy as np
import peers
import pytest
import torch
from peers import agree, k_diffusion, k_sampling, noise_of_calls, ours, start, straight

from diffjax.diffusion import grids, schedules

STEPS, SIGMA_MIN, SIGMA_MAX = 10, 0.02, 80.0
SIGMAS = k_sampling.get_sigmas_karras(STEPS, SIGMA_MIN, SIGMA_MAX).numpy()
EVERY, FIRST, SECOND = slice(None), slice(0, None, 2), slice(1, None, 2)  # whose calls' noise is drawn there


@pytest.mark.parametrize(
    "row, options, sampler, theirs, drawn",
    [
        ("euler", {}, "sample_euler", {}, EVERY),
        ("euler_ancestral", dict(eta=1.0), "sample_euler_ancestral", {}, EVERY),
        ("euler_ancestral", dict(eta=0.5), "sample_euler_ancestral", dict(eta=0.5), EVERY),
        ("heun", {}, "sample_heun", {}, EVERY),
        ("heun", dict(churn=5.0), "sample_heun", dict(s_churn=5.0), FIRST),
        (
            "heun",
            dict(churn=40.0, churn_low=0.05, churn_high=50.0, noise=1.003),
            "sample_heun",
            dict(s_churn=40.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.003),
            FIRST,
        ),
        ("dpm_2", {}, "sample_dpm_2", {}, EVERY),
        ("dpmpp_2s", {}, "sample_dpmpp_2s_ancestral", dict(eta=0.0), EVERY),
        ("dpmpp_2m", {}, "sample_dpmpp_2m", {}, EVERY),
        *[("dpmpp_2m_sde", dict(eta=eta), "sample_dpmpp_2m_sde", dict(eta=eta), EVERY) for eta in (0.0, 0.5, 1.0)],
    ],
)
def test_a_sampler(row, options, sampler, theirs, drawn):
    x = start(scale=SIGMA_MAX)
    there = k_diffusion(sampler, x, SIGMAS, noise=noise_of_calls(2 * STEPS, x)[drawn], **theirs)
    here = ours(row, straight(2 * SIGMA_MAX), SIGMAS / SIGMA_MAX / 2, x, **options)  # churn leads above SIGMA_MAX
    seen = slice(-1, None) if "s_churn" in theirs else EVERY  # it shows its states after the churn
    case = " ".join([row, *map(str, options.values()), "=", sampler, *map(str, theirs.values())])
    agree(case, here[seen], there[seen])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_sampler_whose_noise_is_of_one_path(eta):
    """A whole step's is (sqrt(r) z + z') / sqrt(1 + r), where z is that of its first half and r = sigma_s / sigma_t."""
    x = start(scale=SIGMA_MAX)
    early, late = noise_of_calls(2 * STEPS, x).reshape(STEPS, 2, *x.shape).swapaxes(0, 1)
    r = (SIGMAS[1:] / SIGMAS[:-1])[:, None, None]
    noise = np.stack([early, (np.sqrt(r) * early + late) / np.sqrt(1 + r)], axis=1).reshape(-1, *x.shape)
    there = k_diffusion("sample_dpmpp_sde", x, SIGMAS, noise=noise, eta=eta)
    here = ours("dpmpp_sde", straight(SIGMA_MAX), SIGMAS / SIGMA_MAX, x, eta=eta)
    agree(f"dpmpp_sde {eta} = sample_dpmpp_sde {eta}", here, there)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_linear_multistep_up_to_the_step_onto_data(order):
    """Theirs extrapolates eps_hat on the last step too, down to sigma = 0; ours takes x0_hat there, as all rows do."""
    x = start(scale=SIGMA_MAX)
    there = k_diffusion("sample_lms", x, SIGMAS, order=order)
    here = ours("lms", straight(SIGMA_MAX), SIGMAS / SIGMA_MAX, x, order=order)
    agree(f"lms {order} = sample_lms {order}", here[:-1], there[:-1])


@pytest.mark.parametrize("row, order", [("dpm_1", 1), ("dpm_2", 2), ("dpm_3", 3)])
def test_dpm_solver_of_one_step(row, order):
    x, solver = start(scale=SIGMA_MAX), k_sampling.DPMSolver(lambda x, sigma: peers.mixture(x, 1.0, sigma[0]))
    states, lambdas = [torch.from_numpy(x)], -torch.from_numpy(SIGMAS[:-1]).log()
    for t, s in zip(lambdas[:-1], lambdas[1:], strict=True):
        states.append(getattr(solver, f"dpm_solver_{order}_step")(states[-1], t, s)[0])
    here = ours(row, straight(SIGMA_MAX), SIGMAS[:-1] / SIGMA_MAX, x)
    agree(f"{row} = DPMSolver.dpm_solver_{order}_step", here, torch.stack(states[1:]).numpy())


@pytest.mark.parametrize(
    "grid, theirs",
    [
        (grids.rho, k_sampling.get_sigmas_karras),
        (grids.log_snr, k_sampling.get_sigmas_exponential),
        (grids.log_snr, k_sampling.get_sigmas_polyexponential),
    ],
)
def test_a_grid_of_sigmas(grid, theirs):
    here = SIGMA_MAX * grid(straight(SIGMA_MAX), STEPS, least=SIGMA_MIN / SIGMA_MAX)
    agree(f"grids.{grid.__name__} = {theirs.__name__}", here, theirs(STEPS, SIGMA_MIN, SIGMA_MAX).numpy())


def test_the_sigmas_of_the_linear_schedule():
    alpha, sigma = schedules.linear(0.1, 20.0)(jnp.linspace(1, 1e-3, STEPS))
    theirs = k_sampling.get_sigmas_vp(STEPS)[:-1].numpy()
    agree("schedules.linear = get_sigmas_vp (relative)", np.asarray(sigma / alpha) / theirs, np.ones(STEPS))


# Where theirs is wrong


CURVATURE = "d2 = ", "d2 = 2 * "  # the second divided difference, and the second derivative: twice that


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_their_third_order_rule_is_of_second_order(eta):
    """Where x0_hat is a parabola in lambda, whatever x is, a third-order rule is exact; theirs halves its curvature."""
    x, still = start(scale=SIGMA_MAX), np.zeros((STEPS, 5, 2))

    def miss(*mend):
        with peers.mended(k_sampling, "sample_dpmpp_3m_sde", *mend):
            y = k_diffusion("sample_dpmpp_3m_sde", x, SIGMAS, world=peers.parabola, noise=still, eta=eta)[:-1]
        return peers.miss_of_a_parabola(y, -np.log(SIGMAS[1:-1]), 1 + eta)

    assert miss() > 1e-2 and miss(CURVATURE) < 1e-9


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_third_order_with_that_corrected(eta):
    x = start(scale=SIGMA_MAX)
    with peers.mended(k_sampling, "sample_dpmpp_3m_sde", CURVATURE):
        there = k_diffusion("sample_dpmpp_3m_sde", x, SIGMAS, noise=noise_of_calls(STEPS, x), eta=eta)
    here = ours("dpmpp_3m_sde", straight(SIGMA_MAX), SIGMAS / SIGMA_MAX, x, eta=eta)
    agree(f"dpmpp_3m_sde {eta} = sample_dpmpp_3m_sde {eta}, mended", here, there)
    if not eta:
        here = ours("dpmpp_3m", straight(SIGMA_MAX), SIGMAS / SIGMA_MAX, x)
        agree("dpmpp_3m = sample_dpmpp_3m_sde 0.0, mended", here, there)

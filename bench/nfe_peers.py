"""The rows of diffusers and k-diffusion for `nfe`: every rule that a denoiser can drive, on every grid of its own.

Left out: rules that choose their own number of calls, for distilled networks (LCM, TCD), or for other tasks (RePaint).
"""

import copy
import inspect
import itertools
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bench.nfe_rows import BUDGETS, LOWEST, Row, named, world
from tests.parity import peers

torch, k_sampling = peers.torch, peers.k_sampling


def each(**choices):
    """Every combination of options."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


CHAINS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "flow": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "": {},
}
SPACINGS = [*each(timestep_spacing=["linspace", "leading", "trailing"]), {}]
CURVES = [{}, *({f"use_{name}": True} for name in ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas"))]
MULTISTEP = [
    *each(solver_order=[2, 3], solver_type=["midpoint", "heun"], lower_order_final=[True, False]),
    *each(solver_order=[2], solver_type=["midpoint", "heun"], euler_at_final=[True]),
    *each(solver_order=[1, 2, 3], algorithm_type=["sde-dpmsolver++"]),
]
EDM, SHIFTS = each(sigma_schedule=["karras", "exponential"], sigma_min=LOWEST), each(shift=[1.0, 3.0])
SCHEDULERS = {  # options of the scheduler; those of its steps begin with step_
    "DDIM": each(step_eta=[0.0, 0.5]),
    "DDPM": each(variance_type=["fixed_small", "fixed_large"]),
    "DEISMultistep": each(solver_order=[1, 2, 3]),
    "DPMSolverMultistep": MULTISTEP,
    "DPMSolverSinglestep": each(solver_order=[2, 3], solver_type=["midpoint", "heun"], lower_order_final=[True]),
    "EDMDPMSolverMultistep": [a | b for a in MULTISTEP for b in EDM],
    "EDMEuler": EDM,
    "FlowMatchEulerDiscrete": SHIFTS,
    "FlowMatchHeunDiscrete": SHIFTS,
    "LMSDiscrete": each(step_order=[2, 4]),
    "PNDM": each(skip_prk_steps=[True, False], set_alpha_to_one=[True]),
    "SASolver": each(predictor_order=[2, 3], corrector_order=[2, 3]),
    "UniPCMultistep": each(solver_order=[2, 3], solver_type=["bh1", "bh2"]),
}
PLAIN = (
    "DPMSolverSDE",
    "EulerAncestralDiscrete",
    "EulerDiscrete",
    "HeunDiscrete",
    "KDPM2AncestralDiscrete",
    "KDPM2Discrete",
)
SAMPLERS = {
    "dpmpp_2m_sde": each(eta=[0.0, 0.5, 1.0], solver_type=["midpoint", "heun"]),
    "dpmpp_2s_ancestral": each(eta=[0.0, 1.0]),
    "dpmpp_3m_sde": each(eta=[0.0, 0.5, 1.0]),
    "euler_ancestral": each(eta=[0.5, 1.0]),
    "lms": each(order=[2, 3, 4]),
} | dict.fromkeys(["dpm_2", "dpm_2_ancestral", "dpm_fast", "dpmpp_2m", "dpmpp_sde", "euler", "heun"], [{}])
SIGMAS = {
    f"{top}, {curve} to {low}": partial(getattr(k_sampling, f"get_sigmas_{curve}"), sigma_min=low, sigma_max=high)
    for (top, high), curve, low in itertools.product(
        {"edm": 80.0, "ve": 50.0, "scaled_linear": 14.6146}.items(), ("karras", "exponential"), LOWEST
    )
} | {"linear, vp": k_sampling.get_sigmas_vp}


def jobs():
    """Functions that give rows."""
    table = SCHEDULERS | dict.fromkeys(PLAIN, [{}])
    one = [partial(diffusers, name, options) for name, many in table.items() for options in many]
    return one + [partial(k_diffusion, name, options) for name, many in SAMPLERS.items() for options in many]


class Counted:
    """The exact denoiser as torch sees it."""

    exact = staticmethod(jax.jit(lambda x, alpha, sigma: world().denoise(lambda t: (alpha, sigma))(x, jnp.ones(()))))

    def __init__(self):
        self.calls = 0

    def __call__(self, x, alpha, sigma):
        self.calls += 1
        return torch.from_numpy(np.array(self.exact(x.numpy(), float(alpha), float(sigma))))


def level_of(scheduler, i, k):
    """(alpha, sigma) of call i, at timestep k."""
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[i])
    if "shift" in scheduler.config:
        return 1 - scheduler.sigmas[i], scheduler.sigmas[i]
    if not hasattr(scheduler, "sigmas"):
        return scheduler.alphas_cumprod[k] ** 0.5, (1 - scheduler.alphas_cumprod[k]) ** 0.5
    scale = scheduler.scale_model_input(torch.ones(1), k)  # 1 / sqrt(sigma^2 + the data's own variance)
    return 1.0, (scale**-2 - scheduler.config.get("sigma_data", 1.0) ** 2) ** 0.5


def diffusers(name, options):
    """The rows of a scheduler; each list of levels once."""
    known = inspect.signature(getattr(peers.diffusers, f"{name}Scheduler").__init__.__wrapped__).parameters
    rule = {key: value for key, value in options.items() if key in known}
    of_step = {key.removeprefix("step_"): value for key, value in options.items() if key not in known}
    seen, steps_of = set(), {}

    def ready(steps, grid):
        scheduler = peers.scheduler(f"{name}Scheduler", **rule | grid)
        scheduler.set_timesteps(steps)
        getattr(scheduler, "set_begin_index", lambda i: None)(0)
        return scheduler

    def run(x, seed, scheduler, kind):
        torch.manual_seed(seed)
        scheduler, asked = copy.deepcopy(scheduler), Counted()
        states = peers.theirs(scheduler, x, partial(level_of, scheduler), world=asked, kind=kind, **of_step)
        return states[-1], asked.calls

    for (chain, betas), spacing, curve, budget in itertools.product(CHAINS.items(), SPACINGS, CURVES, BUDGETS):
        grid = betas | spacing | curve
        idle = ("beta_schedule" in known and not betas) or ("timestep_spacing" in known and not spacing)
        if idle or not set(grid) <= set(known) or (chain == "flow" and curve):
            continue
        try:
            if budget not in steps_of:
                steps_of[budget] = next(n for n in range(budget, 0, -1) if len(ready(n, grid).timesteps) <= budget)
            scheduler = ready(steps_of[budget], grid)
            level = level_of(copy.deepcopy(scheduler), 0, scheduler.timesteps[0])
        except (ValueError, StopIteration):  # options that do not go together, or too few calls for one step
            continue
        levels = chain, budget, *map(float, getattr(scheduler, "sigmas", scheduler.timesteps))
        if levels not in seen:
            seen.add(levels)
            kind = (
                "edm"
                if name.startswith("EDM")
                else "velocity"
                if "shift" in scheduler.config or chain == "flow"
                else "epsilon"
            )
            words = ", ".join(filter(None, [chain, *spacing.values(), *(key[4:] for key in curve)])) or "its own"
            at = tuple(map(float, level))
            yield Row(
                "diffusers", named(name, options), words, budget, at, partial(run, scheduler=scheduler, kind=kind)
            )


def k_diffusion(name, options):
    """The rows of a sampler."""
    sampler = getattr(k_sampling, f"sample_{name}")

    def run(x, seed, sigmas):
        torch.manual_seed(seed)
        asked, way = Counted(), (sigmas,)
        if name == "dpm_fast":  # has a grid of its own between two levels
            way = (sigmas[-2], sigmas[0], len(sigmas) - 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = sampler(lambda x, s: asked(x, 1.0, s[0]), torch.from_numpy(x), *way, disable=True, **options)
        return x.numpy(), asked.calls

    calls = [run(np.zeros((1, 2)), 0, SIGMAS["linear, vp"](n))[1] for n in range(2, max(BUDGETS) + 1)]
    for budget, (words, sigmas) in itertools.product(BUDGETS, SIGMAS.items()):
        ts = sigmas(max([n for n, made in enumerate(calls, start=2) if made <= budget], default=2))
        yield Row("k-diffusion", named(name, options), words, budget, (1.0, float(ts[0])), partial(run, sigmas=ts))

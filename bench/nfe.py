"""Closeness to the law at few network calls, ours beside diffusers and k-diffusion, all in double precision.

Everybody asks one exact denoiser of the testbed's mixture, which counts, and starts from the exact law at the first
noise level of his own, alpha x_0 + sigma z, with the same x_0 and z.  Two distances:

    SW     sliced Wasserstein to as many draws of the law; never below what chance leaves between two sets of draws
    RMS    from the ends of the exact flow (2000 steps of ours) of the same starts: has no such floor, and bounds the
           Wasserstein distance to the law; of rows that draw noise it says nothing, and is large

Every rule runs on every grid.  The best by SW run again on fresh seeds, so that many rows are no advantage.
"""

import argparse
import inspect
import itertools
import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import grids
from diffjax.diffusion.sampling import sample
from diffjax.diffusion.schedules import SCHEDULES, time_of_log_snr
from diffjax.diffusion.solvers import SOLVERS
from diffjax.evaluation.distances import floor, sliced_wasserstein
from diffjax.testbed import WORLDS, Setting

BUDGETS, FRESH, FINALISTS = (5, 8, 10, 20), 8, 10
LOWEST = 0.002, 0.01, 0.03, 0.1  # sigma / alpha of the last level above data, where it is the user's to choose
TOPS = {"edm": 80.0, "ve": 50.0, "scaled_linear": 14.6146}
world = cache(WORLDS["mixture"])


def each(**choices):
    """Every combination of options."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


FAMILIES = "linear", "scaled_linear", "cosine", "edm", "ve", "flow"
SAME = "euler", "euler_ancestral", "dpm_1"  # names of ddim
OPTIONS = {
    "ddim": each(eta=[0.5, 1.0]), "deis": each(order=[1, 2]), "unipc": each(order=[1, 2]), "lms": each(order=[2, 3]),
    "ipndm": each(order=[2, 3]), "dpmpp_2m_sde": each(eta=[0.5]), "dpmpp_3m_sde": each(eta=[0.5]),
    "restart": each(repeats=[1], steps=[1]), "annealed_langevin": each(per_level=[1]), "rk45": each(tolerance=[1.0]),
}  # fmt: skip
CHAINS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "flow": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "": {},
}
SPACINGS = [*each(timestep_spacing=["linspace", "leading", "trailing"]), {}]
CURVES = [{}] + [{f"use_{curve}": True} for curve in ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")]
MULTISTEP = [
    *each(solver_order=[2, 3], solver_type=["midpoint", "heun"], lower_order_final=[True, False]),
    *each(solver_order=[2], solver_type=["midpoint", "heun"], euler_at_final=[True]),
    *each(solver_order=[1, 2, 3], algorithm_type=["sde-dpmsolver++"]),
]
EDM, SHIFTS = each(sigma_schedule=["karras", "exponential"], sigma_min=LOWEST), each(shift=[1.0, 3.0])
SCHEDULERS = {  # options of the scheduler; those of its steps are "step_..."
    "DDPM": each(variance_type=["fixed_small", "fixed_large"]),
    "DDIM": each(step_eta=[0.0, 0.5]),
    "PNDM": each(skip_prk_steps=[True, False], set_alpha_to_one=[True]),
    "DPMSolverMultistep": MULTISTEP,
    "DPMSolverSinglestep": each(solver_order=[2, 3], solver_type=["midpoint", "heun"], lower_order_final=[True]),
    "UniPCMultistep": each(solver_order=[2, 3], solver_type=["bh1", "bh2"], lower_order_final=[True, False]),
    "DEISMultistep": each(solver_order=[1, 2, 3]),
    "SASolver": each(predictor_order=[2, 3], corrector_order=[2, 3]),
    "LMSDiscrete": each(step_order=[2, 3, 4]),
    "EDMEuler": EDM,
    "EDMDPMSolverMultistep": [a | b for a in MULTISTEP for b in EDM],
    "FlowMatchEulerDiscrete": SHIFTS,
    "FlowMatchHeunDiscrete": SHIFTS,
} | dict.fromkeys(
    ["EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverSDE"],
    [{}],
)
SAMPLERS = {
    "lms": each(order=[2, 3, 4]),
    "euler_ancestral": each(eta=[0.5, 1.0]),
    "dpmpp_2s_ancestral": each(eta=[0.0, 1.0]),
    "dpmpp_2m_sde": each(eta=[0.0, 0.5, 1.0], solver_type=["midpoint", "heun"]),
    "dpmpp_3m_sde": each(eta=[0.0, 0.5, 1.0]),
    "dpm_adaptive": each(rtol=[0.05, 0.5, 5.0]),
} | dict.fromkeys(["euler", "heun", "dpm_2", "dpm_2_ancestral", "dpmpp_sde", "dpmpp_2m", "dpm_fast"], [{}])


class Row(NamedTuple):
    """A rule on a grid, within a budget.  run(x, seed) -> (samples, calls made)."""

    side: str
    rule: str
    grid: str
    budget: int
    level: tuple[float, float]  # (alpha, sigma) of its first call
    run: Callable


def named(rule, options):
    return " ".join([rule, *(f"{key}={value}" for key, value in options.items())])


class Judge:
    """The starts of a seed, and the distances of their ends to the law."""

    def __init__(self, seed, n):
        keys = jax.random.split(jax.random.key(seed), 3)
        self.seed, self.x0, self.z = seed, world().draw(keys[0], n), jax.random.normal(keys[1], (n, 2))
        u = jax.random.normal(jax.random.key(0), (2, 64))  # the directions of sliced_wasserstein, which sorts slowly
        self.u = np.asarray(u / jnp.linalg.norm(u, axis=0, keepdims=True)).T
        self.truth = np.sort(self.u @ np.asarray(world().draw(keys[2], n)).T)
        self.flow = cache(self._flow)

    def start(self, level):
        return np.asarray(level[0] * self.x0 + level[1] * self.z)

    def _flow(self, level, n=2048):
        """Along the circle alpha^2 + sigma^2 = 1, which is every schedule up to a scale."""
        ratios = np.geomspace(min(level[1] / max(level[0], 1e-9), 1e4), 1e-5, 2000)
        ts = 2 / np.pi * np.append(np.arctan([level[1] / max(level[0], 1e-300), *ratios[1:]]), 0)
        return np.asarray(follow(ts, self.start(level)[:n] / np.hypot(*level)))

    def sw(self, x):
        return float(np.mean(np.sqrt(np.mean((np.sort(self.u @ x.T) - self.truth) ** 2, axis=1))))

    def __call__(self, row, *, rms=False):
        """(row, SW, RMS), or None for a row that breaks down or its budget."""
        try:
            x, calls = row.run(self.start(row.level), self.seed)
        except Exception as e:
            if not hasattr(self,'err'): self.err=set()
            if (row.rule,str(e)[:50]) not in self.err: print("FAIL",row[:4],repr(e)[:200])
            self.err.add((row.rule,str(e)[:50]))
            return None
        if calls > row.budget or not np.isfinite(x).all():
            return None
        ends = self.flow(row.level) if rms else x
        return row, self.sw(x), float(np.sqrt(np.mean((x[: len(ends)] - ends) ** 2)))


@jax.jit
def follow(ts, x):
    process = Setting("", "cosine", "x0", SOLVERS["dpmpp_3m"]).process
    return sample(jax.random.key(0), world().denoise(process.schedule), SOLVERS["dpmpp_3m"](process), ts=ts, x=x)


@cache
def our_grids(family):
    """Grids of 1 to 20 steps, padded to one length, by name."""
    schedule, most = SCHEDULES[family](), max(BUDGETS)
    least = time_of_log_snr(schedule, -2 * jnp.log(jnp.asarray(LOWEST)))

    def stack(name, **options):
        return jnp.stack([grids.pad(grids.GRIDS[name](schedule, n, **options), most + 1) for n in range(1, most + 1)])

    plain = {name: stack(name) for name in ("uniform", "quadratic", "trailing", "leading")}
    even = {n: jax.jit(jax.vmap(lambda t, n=n: stack(n, least=t)))(least) for n in ("log_snr", "rho")}
    return plain | {f"{n} to {low}": ts for n in even for low, ts in zip(LOWEST, even[n], strict=True)}


def ours(job):
    """The rows of a rule on a schedule; none where it is refused."""
    (rule, options), family = job
    try:
        process, made = Setting(rule, family, "x0", SOLVERS[rule]).process, []
        solver, exact = SOLVERS[rule](process, **options), world().denoise(process.schedule)
    except ValueError:
        return

    def counted(xt, t, cond=None):
        jax.debug.callback(lambda: made.append(1))
        return exact(xt, t)

    walk = jax.jit(lambda key, ts, x: sample(key, counted, solver, ts=ts, x=x, padded=True))
    plan = jax.jit(jax.vmap(lambda ts: jnp.sum(solver.plan(ts).moves)))

    def run(x, seed, ts):
        made.clear()
        x = np.asarray(walk(jax.random.key(seed), ts, x))
        jax.effects_barrier()
        return x, len(made)

    for (grid, stack), budget in itertools.product(our_grids(family).items(), BUDGETS):
        for ts in stack[np.flatnonzero(np.asarray(plan(stack)) <= budget)[-1:]]:
            level = tuple(float(part) for part in process.schedule(ts[0]))
            yield Row("ours", named(rule, options), f"{family}, {grid}", budget, level, partial(run, ts=ts))


class Counted:
    """The exact denoiser as torch sees it."""

    denoise = staticmethod(jax.jit(lambda x, alpha, sigma: world().denoise(lambda t: (alpha, sigma))(x, jnp.ones(()))))

    def __init__(self):
        self.calls = 0

    def __call__(self, x, alpha, sigma):
        from torch import from_numpy

        self.calls += 1
        return from_numpy(np.array(self.denoise(x.numpy(), float(alpha), float(sigma))))


def level_of(scheduler, i, k):
    """(alpha, sigma) of call i, at timestep k."""
    import torch

    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[i])
    if "shift" in scheduler.config:
        return 1 - scheduler.sigmas[i], scheduler.sigmas[i]
    if not hasattr(scheduler, "sigmas"):
        return scheduler.alphas_cumprod[k] ** 0.5, (1 - scheduler.alphas_cumprod[k]) ** 0.5
    scale = scheduler.scale_model_input(torch.ones(1), k)  # 1 / sqrt(sigma^2 + data's variance)
    return 1.0, (scale**-2 - scheduler.config.get("sigma_data", 1.0) ** 2) ** 0.5


def diffusers(job):
    """The rows of a scheduler, on every grid that it knows; each list of levels once."""
    from tests.parity import peers

    (name, options), seen = job, set()
    known = inspect.signature(getattr(peers.diffusers, f"{name}Scheduler").__init__.__wrapped__).parameters
    rule = {key: value for key, value in options.items() if not key.startswith("step_")}
    of_step = {key[5:]: value for key, value in options.items() if key.startswith("step_")}

    def ready(steps, grid):
        scheduler = peers.scheduler(f"{name}Scheduler", **rule | grid)
        scheduler.set_timesteps(steps)
        getattr(scheduler, "set_begin_index", lambda i: None)(0)
        return scheduler

    def run(x, seed, steps, grid):
        peers.torch.manual_seed(seed)
        scheduler, asked = ready(steps, grid), Counted()
        kind = "edm" if name.startswith("EDM") else "velocity" if "Flow" in name or "use_flow_sigmas" in grid else "epsilon"
        states = peers.theirs(scheduler, x, partial(level_of, scheduler), world=asked, kind=kind, **of_step)
        return states[-1], asked.calls

    for (chain, betas), spacing, curve, budget in itertools.product(CHAINS.items(), SPACINGS, CURVES, BUDGETS):
        grid = betas | spacing | curve
        if not set(grid) <= set(known) or (not betas and "beta_schedule" in known) or (not spacing and "timestep_spacing" in known):
            continue
        try:
          steps = next(n for n in range(budget, 0, -1) if len(ready(n, grid).timesteps) <= budget)
          scheduler = ready(steps, grid)
          levels = tuple(float(v) for v in getattr(scheduler, "sigmas", scheduler.timesteps))
          level=tuple(map(float, level_of(scheduler, 0, scheduler.timesteps[0])))
        except Exception as e:
            continue
        if (chain, budget, levels) not in seen:
            seen.add((chain, budget, levels))
            title = ", ".join([chain] * bool(chain) + [str(v) for v in spacing.values()] + [k[4:] for k in curve])
            yield Row("diffusers", named(name, options), title, budget, level,
                partial(run, steps=steps, grid=grid))


def k_diffusion(job):
    """The rows of a sampler, on every grid."""
    from tests.parity.peers import k_sampling, torch

    name, options = job

    def run(x, seed, sigmas):
        torch.manual_seed(seed)
        asked, ends = Counted(), (sigmas,)
        if name in ("dpm_fast", "dpm_adaptive"):
            ends = (sigmas[-2], sigmas[0], *[len(sigmas) - 1] * (name == "dpm_fast"))
        sampler = getattr(k_sampling, f"sample_{name}")
        x = sampler(lambda x, sigma: asked(x, 1.0, sigma[0]), torch.from_numpy(x), *ends, disable=True, **options)
        return x.numpy(), asked.calls

    made = {
        f"{top}, {curve} to {low}": partial(getattr(k_sampling, f"get_sigmas_{curve}"), sigma_min=low, sigma_max=TOPS[top])
        for top, curve, low in itertools.product(TOPS, ("karras", "exponential"), LOWEST)
    } | {"linear, vp": k_sampling.get_sigmas_vp}
    made |= {f"edm, polyexponential rho={r} to {low}": partial(k_sampling.get_sigmas_polyexponential, sigma_min=low, sigma_max=80.0, rho=r) for r in (0.5,2.) for low in LOWEST}
    few = lambda n: run(np.zeros((1, 2)), 0, k_sampling.get_sigmas_karras(n, 0.01, 80.0))[1]  # noqa: E731
    for budget in BUDGETS:
        steps = next((n for n in range(budget, 0, -1) if name=="dpm_adaptive" or few(n) <= budget))
        for title, sigmas in made.items():
            ts = sigmas(steps)
            yield Row("k-diffusion", named(name, options), title, budget, (1.0, float(ts[0])), partial(run, sigmas=ts))

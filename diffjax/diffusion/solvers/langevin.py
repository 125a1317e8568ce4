"""Langevin dynamics at a noise level: x + e score + sqrt(2 e) z leaves the level's law as it is, up to O(e).

    predictor_corrector   Langevin steps at every level, reverse diffusion to the next     Song et al. 2021, alg. 2-3
    annealed_langevin     Langevin steps alone, at ever lower levels                       Song & Ermon 2019, alg. 1

score = (alpha x0_hat - x) / sigma^2, and e is in proportion to sigma^2: a step is linear, and depends neither on the
other rows nor on the noise it adds.  Onto data both end with x0_hat (Jolicoeur-Martineau et al. 2021).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ..schedules import ends_in_pure_noise
from ..types import Plan, Process, Solver
from .first_order import ending_on_data, reverse_diffusion
from .linear import Interval, Multistep, intervals, multistep


def predictor_corrector(process: Process, snr: ArrayLike = 0.16, corrections: int = 1) -> Solver:
    """So many Langevin `corrections` at every level of the grid, and `reverse_diffusion` from each to the next.

    Their step is e = 2 (snr |z| / |score|)^2 with |z| / |score| = sigma, which it is on average where the score is that
    of the noise (Song et al. 2021, algorithm 4, takes the norms of the batch at hand).  Raises ValueError for a
    negative number of corrections.
    """
    if corrections < 0:
        raise ValueError(f"the number of corrections must be at least 0; got {corrections}")
    predictor = reverse_diffusion(process)

    def plan(ts):
        step = intervals(process, ts)
        keep, pull, std = _langevin(step, 2 * jnp.square(snr))
        return _alternating(step, corrections, Multistep(step.t, keep, pull, std=std), predictor.plan(ts).rows)

    return multistep(plan)


def annealed_langevin(process: Process, size: ArrayLike = 0.1, per_level: int = 10) -> Solver:
    """Langevin steps of e = size sigma^2 / 2, so many `per_level` of the grid; from level to level x keeps x / alpha.

    Raises ValueError if alpha(1) = 0, where x / alpha is infinite, or for less than one step a level.
    """
    if ends_in_pure_noise(process.schedule):
        raise ValueError("annealed_langevin needs alpha(1) > 0, for it keeps x / alpha; use predictor_corrector")
    if per_level < 1:
        raise ValueError(f"the number of Langevin steps per level must be at least 1; got {per_level}")

    def plan(ts):
        step = intervals(process, ts)
        keep, pull, std = _langevin(step, jnp.multiply(0.5, size))
        scale = step.alpha_s / step.alpha_t
        lead_on = ending_on_data(step, scale * keep, scale * pull, scale * std)
        return _alternating(step, per_level - 1, Multistep(step.t, keep, pull, std=std), lead_on)

    return multistep(plan)


LANGEVIN = {"annealed_langevin": annealed_langevin, "predictor_corrector": predictor_corrector}


def _langevin(step: Interval, size: Array) -> tuple[Array, Array, Array]:
    """(keep, pull, std) of one step at t, of e = size sigma_t^2."""
    return jnp.broadcast_to(1 - size, step.t.shape), size * step.alpha_t, jnp.sqrt(2 * size) * step.sigma_t


def _alternating(step: Interval, count: int, stay: Multistep, lead_on: Multistep) -> Plan:
    """At every level the rule `stay` so many times, with fresh noise, and then the rule that leads on to the next."""

    def merged(*parts):  # [steps, ...] of every call -> [calls, ...]
        return jnp.stack(parts, axis=1).reshape(-1, *step.t.shape[1:])

    rows = jax.tree.map(lambda a, b: merged(*[a] * count, b), stay, lead_on)
    ends = merged(*[step.t] * count, step.s)
    return Plan(merged(*[step.t > step.s] * (count + 1)), merged(*[step.t] * (count + 1)), ends, rows)

"""Pseudo numerical methods: classical rules on eps_hat, each step of them DDIM's (Liu et al. 2022, eq. 11-13).

    x_s = phi(x_t, e) = alpha_s/alpha_t x_t + (sigma_s - sigma_t alpha_s/alpha_t) e

e is the sum of Adams and Bashforth over the last four eps_hat; until there are four, the first steps are made by a
Runge-Kutta rule, whose stages are steps of phi themselves.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..schedules import ends_in_pure_noise
from ..types import Plan, Process, Solver, rows
from .linear import between

# The weights of the last eps_hat, newest first, when there are one, two, three, four of them.
ADAMS_BASHFORTH = np.asarray([[24, 0, 0, 0], [36, -12, 0, 0], [46, -32, 10, 0], [55, -59, 37, -9]]) / 24


class Stage(NamedTuple):
    """Where in a step a call is made, where it leads to, and the share of its eps_hat in the last stage's sum."""

    here: float
    there: float
    share: float


HEUN = (Stage(0, 1, 1 / 2), Stage(1, 1, 1 / 2))
RUNGE_KUTTA = (Stage(0, 1 / 2, 1 / 6), Stage(1 / 2, 1 / 2, 1 / 3), Stage(1 / 2, 1, 1 / 3), Stage(1, 1, 1 / 6))


def plms(process: Process) -> Solver:
    """Four-step Adams-Bashforth, begun by one step of Heun's kind: latent diffusion's PLMS; one call more than steps.

    Raises ValueError if alpha(1) = 0.
    """
    return _begun_by(process, HEUN, starts=1, name="plms")


def pndm(process: Process) -> Solver:
    """Four-step Adams-Bashforth, begun by three Runge-Kutta steps (Liu et al. 2022, F-PNDM); nine calls more.

    Raises ValueError if alpha(1) = 0.
    """
    return _begun_by(process, RUNGE_KUTTA, starts=3, name="pndm")


PSEUDO = {"plms": plms, "pndm": pndm}


class _Call(NamedTuple):
    """x = keep base + whole (sum over the last eps_hat of weights eps_hat + of_total times the stages' sum)."""

    t: Array
    alpha: Array
    sigma: Array
    keep: Array
    whole: Array
    weights: Sequence[Array]
    share: Array
    of_total: Array
    begins: Array


def _begun_by(process: Process, stages: Sequence[Stage], *, starts: int, name: str) -> Solver:
    if ends_in_pure_noise(process.schedule):
        raise ValueError(
            f"{name} needs alpha(1) > 0, for at pure noise eps_hat says nothing of x_0; use unipc or ipndm"
        )

    def plan(ts):
        steps, column = len(ts) - 1, lambda a: jnp.asarray(a).reshape(-1, *(1,) * (ts.ndim - 1))
        few = min(starts, steps)
        step = np.repeat(np.arange(steps), [len(stages)] * few + [1] * (steps - few))  # that each call belongs to
        here, there, share = np.asarray([*list(stages) * few, *[Stage(0, 1, 0)] * (steps - few)]).T
        begins = np.diff(step, prepend=-1) > 0
        of_total = (step < few) & (np.diff(step, append=steps) > 0)
        weights = ADAMS_BASHFORTH[np.where(step < few, 0, np.minimum(step, 3))] * ~of_total[:, None]
        t, s = ts[step], ts[step + 1]
        onto_data = s <= 0  # first order: the first eps_hat of the step, which the later stages find in the past
        at = jnp.where(onto_data, t, t + column(here).astype(ts.dtype) * (s - t))
        to = jnp.where(onto_data, s, t + column(there).astype(ts.dtype) * (s - t))
        leap = between(process, t, to)
        keep = leap.alpha_s / leap.alpha_t
        weights = [jnp.where(onto_data, column(begins == (k == 0)) & (k < 2), column(weights[:, k])) for k in range(4)]
        rows = _Call(
            at, *process.schedule(at), keep, leap.sigma_s - keep * leap.sigma_t, weights,
            jnp.asarray(share, ts.dtype), jnp.where(onto_data, 0, column(of_total)), jnp.asarray(begins),
        )  # fmt: skip
        return Plan((t > s) & (column(begins) | ~onto_data), at, to, rows)

    def run(noise, denoise, x, c, memory):
        base, total, *past = memory
        eps = (x - rows(c.alpha, x) * denoise(x, c.t)) / rows(c.sigma, x)
        base, total = jnp.where(c.begins, x, base), jnp.where(c.begins, 0, total) + c.share * eps
        e = rows(c.of_total, x) * total + sum(rows(w, x) * one for w, one in zip(c.weights, (eps, *past), strict=True))
        past = [jnp.where(c.begins, new, old) for new, old in zip((eps, *past), past, strict=False)]
        return rows(c.keep, x) * base + rows(c.whole, x) * e, (base, total, *past)

    return Solver(plan, lambda x: (jnp.zeros_like(x),) * 5, run)

"""Inpainting along the way: after every step to s what is known is put back, as noisy as x is there.

    x_s = alpha_s known + sigma_s z where known, and the solver's elsewhere            Song et al. 2021b, appendix I.2

The rest was made beside another draw of what is known, and fits it badly.  So every stretch of the grid is walked
several times, with noise for the way back up (Lugmayr et al. 2022, algorithm 1), and the two parts come to agree: with
short steps and many repeats the rest is a draw of p(unknown | known).  `inverse.inpaint` changes x0_hat instead.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..guidance import all_rows, require
from ..schedules import transition
from ..types import Plan, Process, Solver, fold, normal, rows


def repaint(
    process: Process, solver: Solver, known: ArrayLike, mask: ArrayLike, *, repeats: int = 1, jump: int = 1
) -> Solver:
    """`solver` held to `known` where mask is 1 (both [*S] or [B, *S]); every `jump` steps are walked `repeats` times.

    repeats = 1 is replacement alone.  Raises ValueError for a solver of several calls a step or with a memory, whose
    past would contradict what is put in; a walk raises it for noise given in place of keys.
    """
    require(lambda m: (m == 0) | (m == 1), "mask must be 1 where known and 0 elsewhere; got other values", mask)
    if repeats < 1 or jump < 1:
        raise ValueError(f"repaint needs repeats and jump of at least 1; got repeats={repeats}, jump={jump}")
    simple = "repaint holds a solver of one call a step and no memory to what is known; use ddim or ancestral"
    require(lambda: not jax.tree.leaves(solver.init(jnp.zeros((1, 1)))), simple)

    def plan(ts):
        steps, once = np.arange(len(ts) - 1), solver.plan(ts)
        require(lambda: len(once.moves) == len(steps), simple)
        blocks = np.split(steps, steps[jump::jump])
        order = np.concatenate([np.tile(block, repeats) for block in blocks])
        below = np.concatenate([[*block, *[block[-1] + 1, *block[1:]] * (repeats - 1)] for block in blocks])
        up, (lift, variance) = ts[order] > ts[below], transition(process.schedule, ts[order], ts[below])
        moves, start, end, rule = jax.tree.map(lambda a: a[order], once)
        above = jnp.where(up, lift, 1), jnp.where(up, jnp.sqrt(variance), 0)  # at pure noise lift reads 0 / 0
        return Plan(moves, start, end, (rule, *above, *process.schedule(ts[order + 1])))

    def step(noise, denoise, x, c, memory):
        rule, lift, std, alpha, sigma = c
        require(lambda: not callable(noise), "repaint draws from keys, not from given noise; sample without noise=")
        raised = rows(lift, x) * x + rows(std, x) * normal(fold(noise, 1), x)
        new, memory = solver.step(fold(noise, 2), denoise, raised, rule, memory)
        seen = rows(alpha, x) * all_rows(known, x, "known") + rows(sigma, x) * normal(fold(noise, 3), x)
        return jnp.where(all_rows(mask, x, "mask") != 0, seen, new), memory

    return Solver(plan, solver.init, step)

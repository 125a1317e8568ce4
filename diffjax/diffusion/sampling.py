"""The one sampling loop: a solver, a denoiser, a grid of times; one `lax.scan`.

Whatever depends on the grid alone is planned before the loop; the network appears once in the program; the carry holds
x and what the solver remembers, so memory and compile time do not grow with the number of steps.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .types import Denoise, Keys, Process, Solver


def row_keys(key: Keys, n: int, *, first: int | Int[Array, ""] = 0) -> Keys:
    """One key per row: row i's is a function of (key, first + i) alone, so a sample does not depend on its batch."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(n))


def sample(
    key: Keys,
    denoise: Denoise,
    solver: Solver,
    *,
    ts: Float[Array, "points"],
    x: Float[Array, "B *S"],
    cond: Any = None,
) -> Float[Array, "B *S"]:
    """Walk x from ts[0] to ts[-1].  key: one, or one per row [B]; x: a draw of the process at ts[0]."""

    def rule(xt, t):
        return denoise(xt, jnp.broadcast_to(t, xt.shape[:1]), cond)

    def step(carry, inputs):
        x, memory = carry
        i, plan = inputs
        return solver.step(_fold(key, i), rule, x, plan, memory), None

    steps = jnp.arange(1, len(ts))  # 0 is the prior's
    (x, _), _ = jax.lax.scan(step, (x, solver.init(x)), (steps, solver.plan(ts)))
    return x


def generate(
    key: Keys,
    denoise: Denoise,
    solver: Solver,
    *,
    process: Process,
    ts: Float[Array, "points"],
    like: Float[Array, "B *S"],
    cond: Any = None,
) -> Float[Array, "B *S"]:
    """Samples from noise: draw x at ts[0] from the prior, then walk.

    `like` [B, *S] gives shape and dtype; keys as in `sample`.
    """
    x = process.prior(_fold(key, 0), like, ts[0])
    return sample(key, denoise, solver, ts=ts, x=x, cond=cond)


def _fold(key: Keys, i: int | Int[Array, ""]) -> Keys:
    """fold_in of one key, or of every row's."""
    return jax.vmap(jax.random.fold_in, (0, None))(key, i) if key.ndim else jax.random.fold_in(key, i)

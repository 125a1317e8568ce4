"""The one sampling loop: a solver, a denoiser, a grid of times.

Whatever depends on the grid alone is planned before the loop; the network appears once in the program, whatever the
order of the solver; the carry holds x and what the solver remembers, so memory and compile time do not grow with the
number of steps.

Every row of a batch may own its key, its grid and (guidance.py) its scale, and depends on nothing else.  A grid may
end in repetitions of its last time (grids.pad): such steps change nothing, so grids of every length up to a declared
maximum run in one compiled program, and with `padded` they cost no calls either.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from . import grids
from .types import Denoise, Keys, Noise, Process, Solver, fold, rows

X = Any  # [B, *S], or a dict of such for a product process


def row_keys(key: Keys, n: int, *, first: int | Int[Array, ""] = 0) -> Keys:
    """One key per row: row i's is a function of (key, first + i) alone, so a sample does not depend on its batch."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(n))


def sample(
    key: Keys, denoise: Denoise, solver: Solver, *, ts: Float[Array, "points *B"], x: X, cond: Any = None,
    noise: Noise | None = None, padded: bool = False,
) -> X:  # fmt: skip
    """Walk x from ts[0] to ts[-1].  key: one, or one per row [B]; x: a draw of the process at ts[0].

    ts is one grid, or one per row [points, B], or one per element.  `noise` gives the solver's noise in place of the
    key: a Brownian path's, shared with every other solver and grid (brownian.py).  `padded` stops at the last step that
    moves, and gives up reverse-mode differentiation for it.  Raises ValueError for a grid that does not fall.
    """
    return walk(key, denoise, solver, ts=ts, x=x, cond=cond, noise=noise, padded=padded)[0]


def generate(
    key: Keys, denoise: Denoise, solver: Solver, *, process: Process,
    ts: Float[Array, "points *B"], like: X, **options: Any,
) -> X:  # fmt: skip
    """Samples from noise: draw x at ts[0] from the prior, then walk.

    `like` [B, *S] gives shape and dtype; keys and options as in `sample`.
    """
    x = process.prior(fold(key, 0), like, ts[0])
    return sample(key, denoise, solver, ts=ts, x=x, **options)


def edit(
    key: Keys, denoise: Denoise, solver: Solver, *, process: Process,
    ts: Float[Array, "points *B"], x0: X, **options: Any,
) -> X:  # fmt: skip
    """New data near given data: noise x0 up to ts[0], then walk back (SDEdit; Meng et al. 2022, algorithm 1).

    The later the grid starts, the less is changed.  Keys and options as in `sample`.
    """
    x = process.corrupt(fold(key, 0), x0, ts[0])
    return sample(key, denoise, solver, ts=ts, x=x, **options)


def walk(
    key: Keys, denoise: Denoise, solver: Solver, *, ts: Float[Array, "points *B"], x: X, cond: Any = None,
    noise: Noise | None = None, padded: bool = False, record: Callable[[X], Any] | None = None,
) -> tuple[X, Any]:  # fmt: skip
    """`sample`, and what `record` sees of x after every call: (x, records with a leading axis [calls]).

    With `record=lambda x: x` that is the trajectory; nothing is kept unless asked for.
    """
    grids.check(ts)
    if padded and record:
        raise ValueError("a padded walk has no fixed number of calls to record; walk without padded=True")
    plan = solver.plan(ts)

    def rule(xt, t):
        size = jax.tree.leaves(xt)[0].shape[:1]
        return denoise(xt, t if t.ndim > 1 else jnp.broadcast_to(t, size), cond)

    def step(carry, call):
        x, memory = carry
        i, moves, start, end, planned = call
        fresh = fold(key, i)
        source = fresh if noise is None else partial(noise, fresh, start, end)
        new, memory = solver.step(source, rule, x, planned, memory)
        x = jax.tree.map(lambda a, b: jnp.where(rows(moves, a), a, b), new, x)
        return (x, memory), None if record is None else record(x)

    calls = (jnp.arange(1, len(plan.moves) + 1), *plan)  # call 0's noise is the prior's
    carry = (x, solver.init(x))
    if not padded:
        (x, _), records = jax.lax.scan(step, carry, calls)
        return x, records
    moving = jnp.any(plan.moves.reshape(len(plan.moves), -1), axis=1)
    last = jnp.max(jnp.where(moving, calls[0], 0))  # idle calls may come before it, too
    one = lambda i, carry: step(carry, jax.tree.map(lambda a: a[i], calls))[0]  # noqa: E731
    return jax.lax.fori_loop(0, last, one, carry)[0], None


def find_nonfinite(
    key: Keys, denoise: Denoise, solver: Solver, *, ts: Float[Array, "points *B"], x: X, cond: Any = None
) -> None:
    """A debugging walk: raises FloatingPointError naming the first call after which x is not finite, and its rows."""
    finite = lambda x: jnp.isfinite(x).reshape(len(x), -1).all(axis=1)  # noqa: E731
    walked = jax.jit(lambda k, x: walk(k, denoise, solver, ts=ts, x=x, cond=cond, record=lambda x: (finite(x), x)))
    good, xs = walked(key, x)[1]
    bad = np.flatnonzero(~np.asarray(good).all(axis=1))
    if not len(bad):
        return
    i, t = bad[0], solver.plan(ts).start[bad[0]]
    answer = denoise(x if i == 0 else xs[i - 1], jnp.broadcast_to(t, x.shape[:1]), cond)
    culprit = "the solver's step" if finite(answer).all() else "the denoiser's output"
    raise FloatingPointError(
        f"{culprit} is not finite in call {i + 1} of {len(good)}, at t = {np.unique(t).tolist()}, in rows "
        f"{np.flatnonzero(~np.asarray(good[i])).tolist()}; look at the denoiser there"
    )

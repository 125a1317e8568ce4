"""Any solver on any grid by one compiled program, for solvers are linear in what they are told.

What the network sees in call k, and the sample at the end, are sums over what was known before (solvers/linear.py):

    x_k = start[k] x_T + sum_{j < k} told[k, j] x0_hat_j + drawn[k, j] z_j

The numbers depend on the solver and the grid alone, and are read off by walking the unit vectors.  The network is in
the program of `make_ends` and nowhere else: it is compiled once, whatever walks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffjax.diffusion.types import Denoise, Keys, Process, Solver, fold, normal

TOGETHER = 32  # grids that go through the small program at a time


class Starts(NamedTuple):
    """Whose ends are compared: every row's key, an array shaped like the data, and the condition."""

    keys: Keys
    like: Float[Array, "B *S"]
    cond: Any = None


class Walk(NamedTuple):
    """A solver on a grid, as numbers."""

    times: np.ndarray  # [calls]: where the network is called
    start: np.ndarray  # [calls + 1]: shares of x_T; of what every call sees, and of the end
    told: np.ndarray  # [calls + 1, calls]: shares of the answers
    drawn: np.ndarray  # [calls + 1, calls]: shares of the noise that each call draws
    number: np.ndarray  # [calls]: of every call in its plan, from 1; it decides the call's noise
    top: float  # the time of x_T

    @property
    def calls(self) -> int:
        return len(self.times)


def make_walks(solver: Solver, points: int) -> Callable[[np.ndarray], list[Walk]]:
    """grids [G, n + 1], n + 1 <= points -> their walks: one small program for all grids of the solver."""

    def coefficients(ts):
        plan = solver.plan(ts)
        calls = len(plan.moves)
        unit = jnp.eye(1 + 2 * calls, dtype=ts.dtype)

        def step(carry, call):
            (x, memory), (k, moves, planned), asked = carry, call, []

            def denoise(xt, t):
                asked.append((xt[0], t))
                return unit[1 + k][None]

            new, memory = solver.step(lambda like: unit[1 + calls + k][None], denoise, x, planned, memory)
            return (jnp.where(moves, new, x), memory), asked[0]

        carry = unit[:1], solver.init(unit[:1])
        (end, _), (seen, times) = jax.lax.scan(step, carry, (jnp.arange(calls), plan.moves, plan.rows))
        return plan.moves, times, jnp.concatenate([seen, end])

    program = jax.jit(jax.vmap(coefficients))

    def walks(many: np.ndarray) -> list[Walk]:
        made = []
        for some in np.array_split(many, range(TOGETHER, len(many), TOGETHER)):
            padded = np.pad(some, [(0, TOGETHER - len(some)), (0, points - some.shape[1])], mode="edge")
            tables = [a[: len(some)] for a in jax.device_get(program(jnp.asarray(padded)))]
            made += [_walk(*one) for one in zip(some, *tables, strict=True)]
        return made

    return walks


def _walk(ts: np.ndarray, moves: np.ndarray, times: np.ndarray, table: np.ndarray) -> Walk:
    """The calls that are made, out of those that were planned."""
    made, calls = np.flatnonzero(moves), len(moves)
    table = table[[*made, calls]]
    return Walk(times[made], table[:, 0], table[:, 1 + made], table[:, 1 + calls + made], 1 + made, float(ts[0]))


def make_ends(denoise: Denoise, process: Process, most: int) -> Callable:
    """(walk of at most `most` calls, starts) -> (samples, answers [most, B, *S], x_T).

    The samples are those of `sampling.generate`, up to rounding.
    """

    @partial(jax.jit, static_argnames="noisy")
    def program(starts, walk, calls, *, noisy):
        times, start, told, drawn, number, top = walk
        first = process.prior(fold(starts.keys, 0), starts.like, top)
        answers = jnp.zeros((most, *first.shape), first.dtype)
        z = jax.vmap(lambda i: normal(fold(starts.keys, i), first))(number) if noisy else answers

        def at(k, answers):
            x = start[k] * first + jnp.tensordot(told[k], answers, 1)
            return x + jnp.tensordot(drawn[k], z, 1) if noisy else x

        def call(k, answers):
            t = jnp.broadcast_to(times[k], first.shape[:1])
            return answers.at[k].set(denoise(at(k, answers), t, starts.cond))

        answers = jax.lax.fori_loop(0, calls, call, answers)
        return at(most, answers), answers, first

    def ends(walk: Walk, starts: Starts) -> tuple[Array, Array, Array]:
        if walk.calls > most:
            raise ValueError(f"a walk of {walk.calls} calls does not fit a program of {most}; make one of more")
        return program(starts, _padded(walk, most), walk.calls, noisy=bool(walk.drawn.any()))

    return ends


def _padded(walk: Walk, most: int) -> Walk:
    """The walk with idle calls at its end, the row of the sample last."""
    idle = most - walk.calls

    def table(rows):
        rows = np.pad(rows, [(0, 0)] + [(0, idle)] * (rows.ndim - 1))
        return np.concatenate([rows[:-1], np.zeros((idle, *rows.shape[1:]), rows.dtype), rows[-1:]])

    wait = lambda a: np.pad(a, (0, idle), mode="edge")  # noqa: E731
    return Walk(wait(walk.times), table(walk.start), table(walk.told), table(walk.drawn), wait(walk.number), walk.top)

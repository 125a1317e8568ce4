"""Grids made for a network: from the errors that a solver makes along its trajectories.

`shortest`: with e[h, i, j] the error of the step i -> j after h -> i, begun on a reference trajectory, and little
coupling between steps, the best grid of n calls is a shortest path (as Watson et al. 2021 find one for a bound of the
likelihood).  Steps are linear in x and x0_hat, which are known along the trajectory: e needs no call of the network.

`refine`: the error at the end itself, r(theta) over many trajectories, is least squares in theta = (lambda of the first
call, logarithms of the steps in lambda), lambda = log(alpha / sigma): Levenberg (1944) and Marquardt (1963), with
differences for the Jacobian, so that all the network does is sample.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion.gaussian import half_log_snr
from diffjax.diffusion.grids import LOWEST
from diffjax.diffusion.schedules import time_of_log_snr
from diffjax.diffusion.types import Schedule

from .rollouts import Walk

DIGITS, DIFFERENCE, LONGEST_MOVE, ENOUGH, ROUNDS, OUTLYING = 6, 0.02, 0.7, 2e-3, 6, 2.0


class Trajectories(NamedTuple):
    """Reference trajectories at M times that fall to 0, by the products of all that is known along them."""

    times: np.ndarray  # [M]
    products: np.ndarray  # [2 M + 1] squared: means over rows and elements; x at each time, x0_hat there, and x_T
    share: np.ndarray  # [M]: of x_T, in a draw of the prior at each time
    growth: np.ndarray  # [M]: what a small error at each time grows to at the end


def trajectories(schedule: Schedule, walk: Walk, walked: tuple, nodes: int) -> Trajectories:
    """What a walk of many calls has seen at so many of them, and its end.

    walked: (samples, answers, x_T), as `make_ends` gives them.  Growth is that of the flow to one Gaussian of the
    variance of the samples, analytic.gaussian_flow of the testbed.
    """
    at = np.unique(np.linspace(0, walk.calls - 1, nodes - 1).round().astype(int))
    end, answers, first = (np.asarray(a, np.float64) for a in walked)
    answers, flat = answers[: walk.calls].reshape(walk.calls, -1), first.reshape(1, -1)
    x = walk.start[at, None] * flat + walk.told[at] @ answers
    known = np.concatenate([x, end.reshape(1, -1), answers[at], 0 * flat, flat])
    times = np.append(walk.times[at], 0)
    alpha, sigma = (np.asarray(a, np.float64) for a in schedule(jnp.asarray(times)))
    variance = np.var(end)
    growth = np.sqrt(variance / (alpha**2 * variance + sigma**2))
    return Trajectories(times, known @ known.T / flat.size, sigma / sigma[0], growth)


def step_errors(walks: Callable, seen: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """(first [M, M], later [M, M, M]) for `shortest`: root mean squares, as they are at the end.

    walks: of a solver with one call a step (`make_walks`).  A first step has the error of its start too: the prior's.
    """
    nodes = len(seen.times)
    first, later = np.full((nodes,) * 2, np.inf), np.full((nodes,) * 3, np.inf)

    def size(shares, where, node):
        """Of sum_k shares_k known_k - x at the node."""
        shares, where = np.append(shares, -1), np.append(where, node)
        square = shares @ seen.products[np.ix_(where, where)] @ shares
        return np.sqrt(max(square, 0)) * seen.growth[node]

    i, j = np.triu_indices(nodes, 1)
    for at, to, walk in zip(i, j, walks(np.stack([seen.times[i], seen.times[j]], axis=1)), strict=True):
        begun = size([seen.share[at]], [2 * nodes], at)
        first[at, to] = begun + size([walk.start[-1], walk.told[-1, 0]], [at, nodes + at], to)
    h, i, j = np.asarray(list(combinations(range(nodes), 3))).T
    for past, at, to, walk in zip(h, i, j, walks(seen.times[np.stack([h, i, j], axis=1)]), strict=True):
        keep = walk.start[2] / walk.start[1]  # of x at i, which is put back onto the trajectory
        shares = keep, walk.told[2, 0] - keep * walk.told[1, 0], walk.told[2, 1]
        later[past, at, to] = size(shares, [at, nodes + past, nodes + at], to)
    return first, later


def shortest(first: np.ndarray, later: np.ndarray, calls: int) -> list[int]:
    """The nodes 0 <= i_0 < ... < i_calls = M - 1 of least first[i_0, i_1] + sum of later[i_{k-1}, i_k, i_{k+1}].

    first [M, M], later [M, M, M]; infinite where there is no step.  Raises ValueError unless 1 <= calls < M.
    """
    nodes = len(first)
    if not 1 <= calls < nodes:
        raise ValueError(f"a path through {nodes} nodes has 1 to {nodes - 1} steps; got {calls}")
    costs, came = first, []
    for _ in range(calls - 1):
        ways = costs[:, :, None] + later
        came.append(np.argmin(ways, axis=0))
        costs = np.min(ways, axis=0)
    path = [int(np.argmin(costs[:, -1])), nodes - 1]
    for table in reversed(came):
        path.insert(0, int(table[path[0], path[1]]))
    return path


def refine(schedule: Schedule, run: Callable, ts: np.ndarray) -> Iterator[np.ndarray]:
    """Grids [n + 1] of ever smaller error, from ts on; at most ROUNDS of them.

    run: grids [G, n + 1] -> their residuals [G, ...] on the rows that are to be learned from.  The last step, onto
    data, stays.
    """
    highest = float(max(half_log_snr(schedule, jnp.ones(())), 0.5 * LOWEST))
    time_of = jax.jit(partial(time_of_log_snr, schedule))  # asked for every grid

    def theta_of(ts):
        level = np.maximum(np.asarray(half_log_snr(schedule, jnp.asarray(ts[:-1])), np.float64), highest)
        return np.append(level[0], np.log(np.maximum(np.diff(level), 1e-2)))

    def grid_of(theta):
        level = np.maximum(theta[0], highest) + np.append(0, np.cumsum(np.exp(theta[1:])))
        ts = np.asarray(time_of(jnp.asarray(2 * level, jnp.float32)), np.float64)
        return np.append(ts.round(DIGITS), 0)

    def residuals(thetas):
        return run(np.stack([grid_of(theta) for theta in thetas]))

    theta, damping = theta_of(ts), 1e-2
    for _ in range(ROUNDS):
        found = residuals([theta, *(theta + DIFFERENCE * np.eye(len(theta)))])
        weights = _robust(found[0])
        here, *there = (found * weights).reshape(len(found), -1)
        slopes = (np.stack(there, axis=1) - here[:, None]) / DIFFERENCE
        square, slope, cost = slopes.T @ slopes, slopes.T @ here, here @ here
        scale = np.diag(np.diag(square) + 1e-9 * np.trace(square))
        tried = [damping * factor for factor in (0.1, 1, 10, 100)]
        moves = [-np.linalg.solve(square + d * scale, slope).clip(-LONGEST_MOVE, LONGEST_MOVE) for d in tried]
        costs = np.sum(np.square(residuals([theta + move for move in moves]) * weights).reshape(len(moves), -1), axis=1)
        best = np.argmin(np.where(np.isfinite(costs), costs, np.inf))
        if not costs[best] < (1 - ENOUGH) * cost:
            return
        theta, damping = theta + moves[best], tried[best]
        if (np.diff(grid_of(theta)) < 0).all():  # steps may be too short for the digits
            yield grid_of(theta)


def _robust(found: np.ndarray) -> np.ndarray:
    """Square roots of weights that make squares of rows far out grow as absolute values do."""
    size = np.sqrt(np.mean(np.square(found.reshape(len(found), -1)), axis=1))
    weights = (1 + (size / (OUTLYING * np.median(size))) ** 2) ** -0.25
    return weights.reshape(-1, *(1,) * (found.ndim - 1))

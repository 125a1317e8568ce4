"""What nearly all solvers are: linear rules, whose coefficients depend on the grid alone.

A trajectory of the probability-flow ODE obeys, in any schedule and clock, with eps_hat = (x - alpha x0_hat) / sigma,

    dx = x0_hat d(alpha) + eps_hat d(sigma)                                     (Song et al. 2021, eq. 13)

With a constant x0_hat, or as well a constant eps_hat, a step from t to s is exactly DDIM's:

    ddim(x, x0_hat) = sigma_s/sigma_t x + (alpha_s - alpha_t sigma_s/sigma_t) x0_hat

and every higher order is this step and weighted differences m_k - m_0 of what the network said at other times, m being
x0_hat or eps_hat.  The weights integrate a polynomial through the m_k against a kernel (`lagrange`).  A rule that
begins on differences of zero is never worse than first order; a step to s = 0 is always first order, for there x is
x0_hat.  Here lambda = log(alpha / sigma), h = lambda_s - lambda_t.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ..gaussian import half_log_snr
from ..types import Plan, Process, Solver, normal, rows

THETA, SHARES = 0.5 * np.asarray(np.polynomial.legendre.leggauss(24)) + np.asarray(
    [[0.5], [0]]
)  # Gauss's rule on [0, 1]


class Interval(NamedTuple):
    """Both ends of every step of a grid; [steps, ...] each."""

    t: Array
    s: Array
    alpha_t: Array
    sigma_t: Array
    alpha_s: Array
    sigma_s: Array
    h: Array  # lambda_s - lambda_t: finite, for lambda is clipped

    @property
    def ddim(self) -> tuple[Array, Array]:
        """(keep, pull): x_s = keep x + pull x0_hat."""
        keep = self.sigma_s / self.sigma_t
        return keep, self.alpha_s - keep * self.alpha_t

    @property
    def last(self) -> Array:
        """Whether the step ends on data."""
        return self.s <= 0


def between(process: Process, t: Array, s: Array) -> Interval:
    """The step from t to s."""
    schedule = process.schedule
    return Interval(t, s, *schedule(t), *schedule(s), half_log_snr(schedule, s) - half_log_snr(schedule, t))


def intervals(process: Process, ts: Float[Array, "points *B"]) -> Interval:
    """The steps of a grid."""
    return between(process, ts[:-1], ts[1:])


def plan_of(step: Interval, rows: Any) -> Plan:
    """A plan of one call a step."""
    return Plan(step.t > step.s, step.t, step.s, rows)


def lagrange(kernel: Callable, nodes: Sequence[Array], known: Sequence[Array]) -> list[Array]:
    """Weights w_k of m_k - m_0, k >= 1, in the integral over theta in [0, 1] of kernel(theta) p(theta).

    p is the polynomial through m_0 at 0 and through every m_k at its node where it is known; elsewhere w_k is 0.
    kernel: theta -> like the nodes [steps, ...].
    """
    nodes = [jnp.where(ok, node, jnp.inf) for node, ok in zip(nodes, known, strict=True)]

    def weight(k):
        def integrand(theta):
            value = kernel(theta) * theta / nodes[k]
            for node in nodes[:k] + nodes[k + 1 :]:  # (theta - node) / (node_k - node): 1 for a node at infinity
                value = value * (1 - theta / node) / (1 - nodes[k] / node)
            return value

        theta, shares = (jnp.asarray(rule, nodes[k].dtype) for rule in (THETA, SHARES))
        return jnp.where(known[k], jnp.tensordot(shares, jax.vmap(integrand)(theta), 1), 0)

    return [weight(k) for k in range(len(nodes))]


def midpoint(kernel: Callable, nodes: Sequence[Array], known: Sequence[Array]) -> list[Array]:
    """As `lagrange` with one node, but the slope is taken at theta = 1/2 for all of the step: as exact, and simpler."""
    (whole,) = lagrange(lambda theta: kernel(theta) / theta, [jnp.ones_like(nodes[0])], known[:1])
    return [0.5 * whole / jnp.where(known[0], nodes[0], 1)]


def of_data(step: Interval, rate: ArrayLike = 1.0) -> Callable:
    """The kernel of x0_hat in lambda: x_s = sigma_s/sigma_t x + alpha_s int h e^{-(1 - theta) h} x0_hat d theta.

    On the SDE the exponent has a larger rate.
    """
    steep = jnp.multiply(rate, step.h)
    return lambda theta: step.alpha_s * steep * jnp.exp(-(1 - theta) * steep)


def of_noise(step: Interval) -> Callable:
    """The kernel of eps_hat in lambda: x_s = alpha_s/alpha_t x - sigma_s int h e^{(1 - theta) h} eps_hat d theta."""
    return lambda theta: -step.sigma_s * step.h * jnp.exp((1 - theta) * step.h)


def from_past(values: Array, k: int) -> Array:
    """values [points, ...] as they were k steps ago, and where there was no such step the first."""
    return jnp.concatenate([jnp.repeat(values[:1], k, axis=0), values[: len(values) - k]])


def happened(step: Interval, k: int, *, taper: int = 0) -> Array:
    """Whether there were k steps before this one, empty ones apart; never for the step onto data.

    With taper = 1 nor where fewer than k steps are left after it: the order then falls to 1 as it has risen.
    """
    moves = step.t > step.s
    left = jnp.sum(moves, axis=0, keepdims=True) - jnp.cumsum(moves, axis=0)
    return (jnp.cumsum(moves, axis=0) > k) & (left >= k * taper) & ~step.last


class Multistep(NamedTuple):
    """x_s = keep x + pull x0_hat + sum_k weights_k (m_k - m_0) + std z; m_k is from k calls ago."""

    t: Array
    keep: Array
    pull: Array
    weights: Sequence[Array] = ()
    std: Array | None = None  # None: the rule draws no noise
    level: tuple[Array, Array] | None = None  # (alpha_t, sigma_t): m is eps_hat; None: m is x0_hat


def multistep(plan: Callable, history: int = 0) -> Solver:
    """The solver whose plan has Multistep rows, with so many past predictions in its memory."""

    def step(noise, denoise, x, c, past):
        x0_hat = denoise(x, c.t)
        m = x0_hat if c.level is None else (x - rows(c.level[0], x) * x0_hat) / rows(c.level[1], x)
        new = rows(c.keep, x) * x + rows(c.pull, x) * x0_hat
        for weight, before in zip(c.weights, past, strict=True):
            new = new + rows(weight, x) * (before - m)
        if c.std is not None:
            new = new + rows(c.std, x) * normal(noise, x)
        return new, (m, *past)[:history]

    return Solver(plan, lambda x: (jnp.zeros_like(x),) * history, step)


class Stage(NamedTuple):
    """One call of a step of several: x = next[0] base + next[1] x + next[2] first + next[3] x0_hat + std z.

    base and first are x and x0_hat at the beginning of the step.  before = (lift, std): the call is made at
    lift x + std z instead.
    """

    t: Array
    next: Sequence[Array]
    begins: Array
    std: Array | None = None
    before: tuple[Array, Array] | None = None


def staged(plan: Callable) -> Solver:
    """The solver whose plan has Stage rows."""

    def init(x):
        return jnp.zeros_like(x), jnp.zeros_like(x)

    def step(noise, denoise, x, c, memory):
        if c.before is not None:
            lift, std = c.before
            x = rows(lift, x) * x + rows(std, x) * normal(noise, x)
        x0_hat = denoise(x, c.t)
        base, first = (jnp.where(c.begins, new, old) for new, old in zip((x, x0_hat), memory, strict=True))
        new = sum(rows(a, x) * b for a, b in zip(c.next, (base, x, first, x0_hat), strict=True))
        if c.std is not None:
            new = new + rows(c.std, x) * normal(noise, x)
        return new, (base, first)

    return Solver(plan, init, step)


def stages(step: Interval, *calls: tuple, before: tuple[Array, Array] | None = None) -> Plan:
    """The plan of a step of several calls, (time, rule, std or None) each, with noise `before` the first or none.

    A rule gives the next x as a linear function of (base, x, first, x0_hat): its values at the unit vectors are its
    coefficients.  A step onto data takes the first call's x0_hat, and its later calls do nothing.
    """
    n, later = len(step.t), len(calls) - 1
    times = [calls[0][0], *(jnp.where(step.last, step.t, t) for t, _, _ in calls[1:])]
    stds = [jnp.where(step.last, 0, 0 if std is None else std) for _, _, std in calls]

    def merged(parts):  # [steps, ...] of every call -> [calls, ...]
        parts = [jnp.broadcast_to(jnp.asarray(part, step.t.dtype), step.t.shape) for part in parts]
        return jnp.stack(parts, axis=1).reshape(n * len(calls), *step.t.shape[1:])

    def coefficient(i):
        idle = [float(i == 2)] + [float(i == 1)] * later  # x = first, and then x = x
        unit = np.eye(4)[i]
        return merged([jnp.where(step.last, end, rule(*unit)) for (_, rule, _), end in zip(calls, idle, strict=True)])

    rows = Stage(
        t=merged(times),
        next=tuple(coefficient(i) for i in range(4)),
        begins=jnp.arange(n * len(calls)) % len(calls) == 0,
        std=None if calls[0][2] is None else merged(stds),
        before=before and (merged([before[0], *[1] * later]), merged([before[1], *[0] * later])),
    )
    moves = merged([step.t > step.s, *[(step.t > step.s) & ~step.last] * later]) > 0
    ends = times if before else [*times[1:], step.s]  # noise that leads up is no path's
    return Plan(moves, merged(times), merged(ends), rows)


def draws_noise(solver: Solver) -> bool:
    """Whether the solver ever asks for noise; found out by an abstract step."""
    asked = []

    def noise(like):
        asked.append(like)
        return like

    def walk(x, ts):
        one = jax.tree.map(lambda a: a[0], solver.plan(ts).rows)
        return solver.step(noise, lambda xt, t: xt, x, one, solver.init(x))

    jax.eval_shape(walk, jnp.zeros((1, 1)), jnp.linspace(0.9, 0.1, 9))
    return bool(asked)

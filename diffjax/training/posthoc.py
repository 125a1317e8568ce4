"""Averages of any length, after training: combinations of snapshots of two power-function averages.

A snapshot taken at time t weighs the parameters of time tau by p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1), up to t.
What is wanted has such a p* too; the combination sum_i x_i p_i that is nearest to it in L2 solves A x = b, with (Karras
et al. 2024, section 3.2 and appendix C.2)

    A_ij = <p_i, p_j>,   b_i = <p_i, p*>,
    <p, q> = (g + 1)(h + 1) / (g + h + 1) min(t, u)^(g + h + 1) / (t^(g + 1) u^(h + 1))      p of (g, t), q of (h, u)

The weights sum to 1, as those of the paper nearly do: what does not move is then kept as it is (a multiplier is one
more unknown).  The residual |p* - sum_i x_i p_i| says how good it is: parameters that vary by a white noise of strength
s about their course are averaged to an error of s times the residual.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .ema import gamma_of


class Snapshot(NamedTuple):
    """A power-function average: its relative standard deviation, and the number of steps that it is of."""

    std: float
    steps: int


def coefficients(snapshots: Sequence[Snapshot], wanted: Snapshot) -> tuple[np.ndarray, float]:
    """(x, residual): the weights of the snapshots, and |p* - sum x p| over |p*|.

    Raises ValueError without snapshots, or for one that is later than what is wanted.
    """
    if not snapshots:
        raise ValueError("no snapshot to rebuild an average from; train with ema 'power' and every.snapshot > 0")
    if late := [s.steps for s in snapshots if s.steps > wanted.steps]:
        raise ValueError(f"snapshots of steps {late} are later than the average wanted, of step {wanted.steps}")
    gammas = np.asarray([gamma_of(s.std) for s in (*snapshots, wanted)])
    times = np.asarray([s.steps for s in (*snapshots, wanted)]) / wanted.steps
    products = _inner(gammas[:, None], times[:, None], gammas[None], times[None])
    A, b, whole = products[:-1, :-1], products[:-1, -1], products[-1, -1]
    size = np.append(np.sqrt(np.diag(A)), 1)  # to unit length: the products span many orders
    ones = np.ones((len(b), 1))
    system = np.block([[A, ones], [ones.T, np.zeros((1, 1))]]) / np.outer(size, size)
    x = (np.linalg.lstsq(system, np.append(b, 1) / size, rcond=1e-14)[0] / size)[:-1]
    residual = np.sqrt(max(whole - 2 * x @ b + x @ A @ x, 0) / whole)
    return x, float(residual)


def combine(weights: Iterable[float], trees: Iterable[Any]) -> Any:
    """sum_i weights_i trees_i, one tree at a time, wherever their arrays live."""
    total = None
    for weight, tree in zip(weights, trees, strict=True):
        total = _scaled(weight, tree) if total is None else _added(total, weight, tree)
    return total


@jax.jit
def _scaled(weight, tree):
    return jax.tree.map(lambda a: weight * a, tree)


@jax.jit
def _added(total, weight, tree):
    return jax.tree.map(lambda a, b: a + weight * b, total, tree)


def _inner(g, t, h, u):
    both = g + h + 1
    # in logarithms: t^(g + 1) underflows for early snapshots of long averages
    logs = both * np.log(np.minimum(t, u)) - (g + 1) * np.log(t) - (h + 1) * np.log(u)
    return (g + 1) * (h + 1) / both * np.exp(logs)

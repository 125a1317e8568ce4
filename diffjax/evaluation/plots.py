"""Figures that people look at instead of tables.  Each returns a matplotlib Figure; `save` writes one.

loss against the noise level, schedules in t and in log-SNR, trajectories, cost against quality, distributions; pictures
of samples (grids, strips, neighbours) are in pictures.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from diffjax.diffusion.schedules import log_snr
from diffjax.diffusion.types import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMAL = 1.96  # standard errors to either side that hold 95 %


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure; its suffix says how (png, svg, pdf).  The path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _panels(count: int, *, width: float = 5.0, height: float = 3.4):
    from matplotlib.figure import Figure  # here, for it takes half a second

    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, np.atleast_1d(figure.subplots(1, count))


def loss_against_noise(
    snr: Float[np.ndarray, "n"], losses: Float[np.ndarray, "n"], errors: Float[np.ndarray, "n"] | None = None
) -> "Figure":
    """The loss over log-SNR, data on the right, with a band of 95 % where standard errors are given."""
    figure, (axis,) = _panels(1)
    order = np.argsort(snr)
    axis.plot(snr[order], losses[order], marker="o", ms=2.5)
    if errors is not None:
        low, high = (losses + sign * NORMAL * errors for sign in (-1, 1))
        axis.fill_between(snr[order], low[order], high[order], alpha=0.25, lw=0)
    axis.set(xlabel="log-SNR (noise to data)", ylabel="loss")
    return figure


def schedules(rows: Mapping[str, Schedule], *, points: int = 257) -> "Figure":
    """alpha and sigma over t, and log-SNR over t, of schedules by name."""
    figure, (left, right) = _panels(2)
    t = jnp.linspace(0, 1, points + 2)[1:-1]
    for name, schedule in rows.items():
        alpha, sigma = (np.asarray(value) for value in schedule(t))
        (line,) = left.plot(t, alpha, label=name)
        left.plot(t, np.minimum(sigma, 1.5), ls="--", color=line.get_color())
        right.plot(t, np.asarray(log_snr(schedule, t)), color=line.get_color(), label=name)
    left.set(xlabel="t", ylabel="alpha (solid), sigma (dashed, up to 1.5)")
    right.set(xlabel="t", ylabel="log-SNR")
    right.legend(fontsize=8)
    return figure


def trajectories(times: Float[np.ndarray, "n"], xs: Float[np.ndarray, "n rows"], *, title: str = "") -> "Figure":
    """One number of every row on its way from noise, on the left, to data."""
    figure, (axis,) = _panels(1)
    axis.plot(times, xs, lw=0.6, alpha=0.6, color="C0")
    axis.set(xlabel="t", ylabel="x", title=title, xlim=(float(np.max(times)), float(np.min(times))))
    return figure


def pareto(fixed: Float[np.ndarray, "n 2"], plans: Float[np.ndarray, "m 2"], *, x: str, y: str) -> "Figure":
    """Costs and errors: all fixed rows as dots, the best of every cost joined, and the plans."""
    figure, (axis,) = _panels(1, height=3.6)
    axis.scatter(*fixed.T, s=6, color="0.75", lw=0, label="solvers on named grids")
    costs = np.unique(fixed[:, 0])
    axis.plot(costs, [fixed[fixed[:, 0] == c, 1].min() for c in costs], color="0.4", lw=1, label="the best of them")
    plans = plans[np.argsort(plans[:, 0])]
    axis.plot(*plans.T, marker="o", ms=5, color="tab:red", lw=1.2, label="plans")
    axis.xaxis.get_major_locator().set_params(integer=bool((costs % 1 == 0).all()))  # there are no half calls
    axis.set(xlabel=x, ylabel=y, yscale="log", ylim=(0.7 * plans[:, 1].min(), 2 * np.quantile(fixed[:, 1], 0.9)))
    axis.legend(fontsize=7, frameon=False)
    return figure


def distributions(values: Mapping[str, Float[np.ndarray, "n"]], *, x: str, y: str) -> "Figure":
    """Histograms on the same bins, with their means."""
    figure, (axis,) = _panels(1)
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=40)
    for i, (name, some) in enumerate(values.items()):
        axis.hist(some, bins=bins.tolist(), histtype="stepfilled", alpha=0.4, color=f"C{i}", label=name)
        axis.axvline(float(np.mean(some)), color=f"C{i}", lw=1)
    axis.set(xlabel=x, ylabel=y)
    axis.legend(fontsize=8)
    return figure


def curve(
    points: Float[np.ndarray, "n 2"], *, x: str, y: str, marks: Sequence[float] = (), least: bool = False
) -> "Figure":
    """A line, with dotted lines at the x of `marks`; with `least` the x of its least y is written there."""
    figure, (axis,) = _panels(1)
    points = points[np.argsort(points[:, 0])]
    axis.plot(points[:, 0], points[:, 1], marker="o", ms=3)
    if least:
        best = points[np.argmin(points[:, 1])]
        axis.annotate(f"{best[0]:.3g}", best, xytext=(0, -12), textcoords="offset points", ha="center", fontsize=8)
    for mark in marks:
        axis.axvline(mark, color="0.7", ls=":", lw=1)
    axis.set(xlabel=x, ylabel=y)
    axis.margins(y=0.15)
    return figure

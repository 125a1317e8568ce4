"""Errors against costs, as a picture."""

from pathlib import Path

import numpy as np


def front(fixed: np.ndarray, plans: np.ndarray, path: Path, *, x: str, y: str) -> None:
    """Costs and errors, [n, 2] each: all fixed rows as dots, the best of every cost joined, and the plans."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.6))
    axis.scatter(*fixed.T, s=6, color="0.75", lw=0, label="solvers on named grids")
    costs = np.unique(fixed[:, 0])
    axis.plot(costs, [fixed[fixed[:, 0] == c, 1].min() for c in costs], color="0.4", lw=1, label="the best of them")
    plans = plans[np.argsort(plans[:, 0])]
    axis.plot(*plans.T, marker="o", ms=5, color="tab:red", lw=1.2, label="plans")
    axis.set(xlabel=x, ylabel=y, yscale="log", ylim=(0.7 * plans[:, 1].min(), 2 * np.quantile(fixed[:, 1], 0.9)))
    axis.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)

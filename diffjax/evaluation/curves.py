"""A number against another, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def curve(points: np.ndarray, path: Path, *, x: str, y: str, marks: Sequence[float] = ()) -> None:
    """points [n, 2] as a line, its least y named, with dotted lines at the x of `marks`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.4))
    points = points[np.argsort(points[:, 0])]
    axis.plot(points[:, 0], points[:, 1], marker="o", ms=3)
    best = points[np.argmin(points[:, 1])]
    axis.annotate(f"{best[0]:.3g}", best, xytext=(0, -12), textcoords="offset points", ha="center", fontsize=8)
    for mark in marks:
        axis.axvline(mark, color="0.7", ls=":", lw=1)
    axis.set(xlabel=x, ylabel=y)
    axis.margins(y=0.15)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)

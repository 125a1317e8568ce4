"""Points in the plane whose law one can draw: the first thing to try a new process, solver or network on.

Every law is one function (generator, n) -> (points [n, 2], labels [n] or None), scaled to about unit variance by constants
of the law, not of the draw, so that all splits follow the same law.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from diffjax.data.source import Source, from_arrays
from diffjax.errors import InputError, unknown

Draw = tuple[Float[np.ndarray, "n 2"], Int[np.ndarray, "n"] | None]


class Law(NamedTuple):
    """How to draw points, and how many classes they fall into (0: no labels)."""

    draw: Callable[[np.random.Generator, int], Draw]
    classes: int = 0


def moons(generator: np.random.Generator, n: int) -> Draw:
    """Two interleaved half circles; the class is the half circle."""
    label = generator.integers(2, size=n)
    angle = np.pi * generator.random(n)
    sign = 1 - 2 * label
    arc = np.stack([sign * (np.cos(angle) - 0.5), sign * (np.sin(angle) - 0.25)], axis=1)
    return (arc + 0.07 * generator.standard_normal((n, 2))) / 0.7, label


def eight_gaussians(generator: np.random.Generator, n: int) -> Draw:
    """Eight narrow Gaussians on a circle of radius sqrt(2); the class is the Gaussian."""
    label = generator.integers(8, size=n)
    angle = label * np.pi / 4
    centre = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return centre + 0.1 * generator.standard_normal((n, 2)), label


def checkerboard(generator: np.random.Generator, n: int) -> Draw:
    """Uniform on the eight dark squares of a 4 x 4 board; a side of 2 sqrt(3) gives each axis variance 1."""
    row = generator.integers(4, size=n)
    column = 2 * generator.integers(2, size=n) + row % 2
    corner = np.stack([column, row], axis=1) - 2
    return (corner + generator.random((n, 2))) * np.sqrt(3) / 2, None


def swiss_roll(generator: np.random.Generator, n: int) -> Draw:
    """A spiral of one and a half turns, with a little noise."""
    angle = 1.5 * np.pi * (1 + 2 * generator.random(n))
    spiral = angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (spiral + 0.3 * generator.standard_normal((n, 2))) / 7, None


LAWS = {
    "checkerboard": Law(checkerboard),
    "eight_gaussians": Law(eight_gaussians, classes=8),
    "moons": Law(moons, classes=2),
    "swiss_roll": Law(swiss_roll),
}


def toy(split: str, law: str = "moons", size: int = 10_000) -> Source:
    """`size` points [2] of one of LAWS, float32; every split is an independent draw, the same in every run."""
    if law not in LAWS:
        raise unknown("toy law", law, LAWS)
    if size < 1:
        raise InputError(f"toy got size {size}; set it to 1 or more points")
    # A checksum, because Python's own hash of a string changes from run to run.
    generator = np.random.Generator(np.random.Philox(key=zlib.crc32(split.encode())))
    x, label = LAWS[law].draw(generator, size)
    return from_arrays(x.astype(np.float32), label, LAWS[law].classes)

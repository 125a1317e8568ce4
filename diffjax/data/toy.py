"""Laws in the plane, for seconds-long experiments; each about unit variance."""

import zlib

import numpy as np

from diffjax.errors import InputError, unknown

from .source import Source, from_arrays


def moons(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved half circles; the class says which."""
    label, angle = rng.integers(2, size=n), np.pi * rng.random(n)
    sign = 1 - 2 * label
    x = np.stack([sign * np.cos(angle) + label - 0.5, sign * np.sin(angle) + 0.5 * label - 0.25], axis=1)
    return 1.3 * x + 0.06 * rng.normal(size=(n, 2)), label


def eight_gaussians(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight narrow Gaussians on a circle; the class says which."""
    label = rng.integers(8, size=n)
    angle = 2 * np.pi * label / 8
    return 1.4 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.normal(size=(n, 2)), label


def checkerboard(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The dark squares of a 4 x 4 board; the class is the column."""
    column = rng.integers(4, size=n)
    row = 2 * rng.integers(2, size=n) + column % 2
    return 0.85 * (np.stack([column, row], axis=1) + rng.random((n, 2)) - 2), column


def spirals(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arms; the class says which."""
    label, turn = rng.integers(2, size=n), np.sqrt(rng.random(n))
    angle = 3 * np.pi * turn + np.pi * label
    return 2 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.04 * rng.normal(size=(n, 2)), label


LAWS = {
    "moons": (moons, 2),
    "eight_gaussians": (eight_gaussians, 8),
    "checkerboard": (checkerboard, 4),
    "spirals": (spirals, 2),
}


def toy(split: str, law: str = "moons", size: int = 10_000) -> Source:
    """`size` points of a law, float32 [size, 2], drawn anew for every split but always the same."""
    if law not in LAWS:
        raise unknown("law of toy", law, LAWS)
    if size < 1:
        raise InputError(f"the size of a toy set must be at least 1; got {size}")
    draw, classes = LAWS[law]
    x, label = draw(np.random.default_rng(zlib.crc32(f"{law}/{split}".encode())), size)
    return from_arrays(x.astype(np.float32), label.astype(np.int32), classes=classes, unit="points")

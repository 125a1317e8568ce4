"""Where a token is, on a grid of any rank: added to it, or turned into its queries and keys.

    sincos    h + [sin(p w_i), cos(p w_i)] for each axis, the last axis first, the width shared between them, and
              w_i = 10000^(-i / n) (Vaswani et al. 2017; Peebles & Xie 2023)
    learned   h + a table of parameters, for grids of one size
    rotary    a pair of channels of each query and key turns by the angle p w_i, the pairs shared between the axes, so
              that scores depend on differences of positions alone (Su et al. 2021)

A row is constructed with a grid and is called as h [B, *G, W] -> (h, angles [*G, D / 2] or None), for grids of any
size unless it says otherwise.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


class Sincos(nnx.Module):
    """Fixed waves, added."""

    def __init__(self, grid: tuple[int, ...], width: int, *, head: int, rngs: nnx.Rngs):
        if width < 2 * len(grid):
            raise ValueError(f"positions 'sincos' need a width of at least {2 * len(grid)}; got {width}")

    def __call__(self, h):
        angles = _angles(h.shape[1:-1][::-1], h.shape[-1] // (2 * (h.ndim - 2)))
        waves = [np.concatenate([np.sin(a), np.cos(a)], axis=-1) for a in angles]
        table = _spread(waves, h.shape[-1])  # of the axes in reverse
        return h + table.transpose(*range(h.ndim - 2)[::-1], h.ndim - 2).astype(h.dtype)[None], None


class Learned(nnx.Module):
    """A table, added.  Raises ValueError on a grid of another size."""

    def __init__(self, grid: tuple[int, ...], width: int, *, head: int, rngs: nnx.Rngs):
        self.table = nnx.Param(0.02 * jax.random.normal(rngs.params(), (*grid, width)))

    def __call__(self, h):
        if h.shape[1:] != self.table.shape:
            known, got = self.table.shape[:-1], h.shape[1:-1]
            raise ValueError(
                f"learned positions are for a grid of {known} patches; got {got}; for other sizes use net.positions "
                f"'sincos' or 'rotary'"
            )
        return h + self.table[...].astype(h.dtype)[None], None


class Rotary(nnx.Module):
    """Angles for `turned`; with channels over, the last pairs do not turn."""

    def __init__(self, grid: tuple[int, ...], width: int, *, head: int, rngs: nnx.Rngs):
        if head % 2 or head < 2 * len(grid):
            raise ValueError(f"positions 'rotary' need heads of an even width of at least {2 * len(grid)}; got {head}")
        self.head = head

    def __call__(self, h):
        return h, _spread(_angles(h.shape[1:-1], self.head // (2 * (h.ndim - 2))), self.head // 2)


POSITIONS = {"sincos": Sincos, "learned": Learned, "rotary": Rotary}


def turned(x: Float[Array, "B *N H D"], angles: Float[Array, "*N half"]) -> Float[Array, "B *N H D"]:
    """Channels i and i + D / 2 of every head turn together, by the angle of their position."""
    cos, sin = (wave(angles)[None, ..., None, :] for wave in (jnp.cos, jnp.sin))
    one, two = jnp.split(x.astype(angles.dtype), 2, axis=-1)
    return jnp.concatenate([one * cos - two * sin, one * sin + two * cos], axis=-1).astype(x.dtype)


def _angles(grid: tuple[int, ...], count: int) -> list[np.ndarray]:
    """Of each axis, positions 0 ... n - 1 times `count` frequencies."""
    frequencies = 10000.0 ** -(np.arange(count) / count)
    return [np.arange(size)[:, None] * frequencies for size in grid]


def _spread(tables: list[np.ndarray], width: int) -> Float[Array, "*G width"]:
    """A table [n, K] of each axis over the whole grid, one after another, and zeros up to the width."""
    grid, rank = tuple(len(table) for table in tables), len(tables)
    spread = [
        jnp.broadcast_to(
            jnp.asarray(table, jnp.float32).reshape(*(-1 if i == axis else 1 for i in range(rank)), table.shape[-1]),
            (*grid, table.shape[-1]),
        )
        for axis, table in enumerate(tables)
    ]
    joined = jnp.concatenate(spread, axis=-1)
    return jnp.pad(joined, [(0, 0)] * rank + [(0, width - joined.shape[-1])])

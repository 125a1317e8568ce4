"""Patches (Dosovitskiy et al. 2021) of data of any rank: [B, *S, C] <-> [B, *(S / patch), prod(patch) C].

Inside a token positions come before channels: a patch of a picture reads (row, column, channel).
"""

import math

from flax import nnx
from jaxtyping import Array, Float

from .linear import Linear


def patchify(x: Float[Array, "B *S C"], patch: tuple[int, ...]) -> Float[Array, "B *G P"]:
    """Every patch becomes a token.  Raises ValueError if a side is not a multiple of the patch's."""
    grid = grid_of(x.shape[1:-1], patch)
    rank = len(patch)
    split = [n for side in zip(grid, patch, strict=True) for n in side]
    x = x.reshape(x.shape[0], *split, x.shape[-1])
    inside, between = range(2, 2 * rank + 1, 2), range(1, 2 * rank, 2)
    return x.transpose(0, *between, *inside, 2 * rank + 1).reshape(x.shape[0], *grid, math.prod(patch) * x.shape[-1])


def unpatchify(tokens: Float[Array, "B *G P"], patch: tuple[int, ...]) -> Float[Array, "B *S C"]:
    """The inverse of patchify."""
    grid, rank = tokens.shape[1:-1], len(patch)
    x = tokens.reshape(tokens.shape[0], *grid, *patch, -1)
    order = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    sides = [n * p for n, p in zip(grid, patch, strict=True)]
    return x.transpose(0, *order, 2 * rank + 1).reshape(tokens.shape[0], *sides, x.shape[-1])


def grid_of(space: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    """How many patches there are along each axis.  Raises ValueError if they do not fit."""
    if len(space) != len(patch) or any(size % p for size, p in zip(space, patch, strict=True)):
        raise ValueError(f"patches of {patch} do not tile data of {space}; each side must be a multiple of the patch's")
    return tuple(size // p for size, p in zip(space, patch, strict=True))


class PatchEmbedding(nnx.Module):
    """Patches of `inputs` channels through one linear layer, or with a `bottleneck` through two (Li & He 2025)."""

    def __init__(self, inputs: int, width: int, *, patch: tuple[int, ...], bottleneck: int, dtype, rngs: nnx.Rngs):
        self.patch, size = patch, math.prod(patch) * inputs
        self.narrow = Linear(size, bottleneck, use_bias=False, dtype=dtype, rngs=rngs) if bottleneck else None
        self.linear = Linear(bottleneck or size, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B *S C"]) -> Float[Array, "B *G width"]:
        h = patchify(x, self.patch)
        return self.linear(h if self.narrow is None else self.narrow(h))

"""Encoders of pictures (Dosovitskiy et al. 2021): patches, a class token before them, blocks; the class token answers.

    h = [cls, patches] + positions,   then registers (Darcet et al. 2024) behind cls,   then a norm if `pre_norm`
    h = h + gain  attention(norm(h))
    h = h + gain' mlp(norm'(h))                 gains are 1 without `layer_scale` (Touvron et al. 2021)
    answer = norm(h)[cls], projected if `project`

DINOv2 (Oquab et al. 2024) has layer scale, exact gelus and positions of a grid of 37, which are interpolated to that at
hand; the vision tower of CLIP (Radford et al. 2021) a norm before the blocks, quick gelus and a projection.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from .patches import PatchEmbedding
from .stack import run, stacked
from .transformer import MLPS, Attention, Mlp, Told


def bicubic(count: int, wanted: int, *, offset: float = 0.0) -> Float[np.ndarray, "wanted count"]:
    """The matrix of cubic interpolation (Keys 1981, a = -3/4) between centres, the ends repeated, as PyTorch has it.

    With an `offset` the spacing is that of `wanted` + offset points, as DINOv2 was made: a hundredth of a step.
    """
    where = (np.arange(wanted) + 0.5) * count / (wanted + offset) - 0.5
    taps = np.floor(where)[:, None] + np.arange(-1, 3)
    far = np.abs(where[:, None] - taps)
    near = ((1.25 * far - 2.25) * far) * far + 1
    weight = np.where(far <= 1, near, ((-0.75 * far + 3.75) * far - 6) * far + 3)
    matrix = np.zeros((wanted, count))
    np.add.at(matrix, (np.arange(wanted)[:, None], np.clip(taps, 0, count - 1).astype(int)), weight)
    return matrix.astype(np.float32)


def antialiased(count: int, wanted: int, *, offset: float = 0.0) -> Float[np.ndarray, "wanted count"]:
    """The same with a = -1/2 and, where there are fewer points than before, a filter as much wider; ends left out."""
    scale = count / wanted
    wide = max(scale, 1.0)
    where = (np.arange(wanted) + 0.5) * scale
    far = np.abs(np.arange(count) + 0.5 - where[:, None]) / wide
    near = (1.5 * far - 2.5) * far**2 + 1
    weight = np.where(far < 1, near, np.where(far < 2, ((-0.5 * far + 2.5) * far - 4) * far + 2, 0))
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


INTERPOLATIONS = {"bicubic": bicubic, "antialiased": antialiased}


class Tokens(nnx.Module):
    """patches [B, *G, W] -> [B, 1 + registers + N, W]."""

    def __init__(self, grid: int, width: int, *, registers: int, interpolation: str, offset: float, rngs: nnx.Rngs):
        self.grid, self.interpolation, self.offset = grid, interpolation, offset
        small = lambda *shape: nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))  # noqa: E731
        self.cls, self.positions = small(width), small(1 + grid**2, width)
        self.registers = small(registers, width) if registers else None

    def __call__(self, h):
        batch, *grid, width = h.shape
        first, rest = self.positions[:1], self._interpolated(*grid)
        front = [self.cls[...][None] + first]
        front += [] if self.registers is None else [self.registers[...]]
        front = jnp.broadcast_to(jnp.concatenate(front)[None], (batch, sum(map(len, front)), width))
        return jnp.concatenate([front, h.reshape(batch, -1, width) + rest[None]], axis=1)

    def _interpolated(self, height: int, width: int) -> Float[Array, "N W"]:
        table = self.positions[1:]
        if (height, width) == (self.grid, self.grid):
            return table
        make = INTERPOLATIONS[self.interpolation]
        down, across = (make(self.grid, size, offset=self.offset) for size in (height, width))
        table = table.reshape(self.grid, self.grid, -1)
        spread = jnp.einsum("hi,wj,ijc->hwc", down, across, table, precision="highest")
        return spread.reshape(-1, spread.shape[-1])


class Block(nnx.Module):
    """h [B, 1, N, W] -> h."""

    def __init__(self, width: int, *, heads: int, mlp: str, layer_scale: bool, eps: float, rngs: nnx.Rngs):
        plain: dict[str, Any] = dict(dtype=None, rngs=rngs)
        self.norm1, self.norm2 = norm(width, eps, rngs=rngs), norm(width, eps, rngs=rngs)
        self.attention = Attention(width, heads=heads, qk_norm=False, **plain)
        self.mlp = Mlp(width, activation=mlp, **plain)
        self.scale1, self.scale2 = (Gain(width) if layer_scale else None for _ in range(2))

    def __call__(self, h):
        nothing = Told(jnp.zeros((len(h), 0)))
        h = h + scaled(self.scale1, self.attention(self.norm1(h), nothing))
        return h + scaled(self.scale2, self.mlp(self.norm2(h)))


class Gain(nnx.Module):
    def __init__(self, width: int):
        self.gain = nnx.Param(jnp.ones(width))


def scaled(by: Gain | None, h: Float[Array, "B G N W"]) -> Float[Array, "B G N W"]:
    """Layer scale, where there is one."""
    return h if by is None else h * by.gain[...][None, None, None]


def norm(width: int, eps: float, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=eps, use_fast_variance=False, rngs=rngs)


class VisionTransformer(nnx.Module):
    """x [B, H, W, 3], normalised -> [B, F] float32, for any sides that the patches tile."""

    def __init__(
        self, width: int, depth: int, *, patch: int, tokens: dict, block: dict, pre_norm: bool, project: int, rngs
    ):
        eps = block["eps"]
        self.stem = PatchEmbedding(3, width, patch=(patch, patch), bottleneck=0, dtype=None, rngs=rngs)
        self.tokens = Tokens(width=width, **tokens, rngs=rngs)
        self.pre_norm = norm(width, eps, rngs=rngs) if pre_norm else None
        self.blocks = stacked(lambda rngs: Block(width, **block, rngs=rngs), depth, rngs=rngs)
        self.norm = norm(width, eps, rngs=rngs)
        self.project = nnx.Linear(width, project, use_bias=False, rngs=rngs) if project else None

    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B F"]:
        h = self.tokens(self.stem(x))
        h = h if self.pre_norm is None else self.pre_norm(h)
        h = self.norm(run(self.blocks, "none", h[:, None])[:, 0, 0])
        return h if self.project is None else self.project(h)


def vision_transformer(
    *, rngs: nnx.Rngs, width: int = 768, depth: int = 12, heads: int = 12, patch: int = 14, grid: int = 37,
    mlp: str = "erf_gelu", layer_scale: bool = True, registers: int = 0, pre_norm: bool = False, project: int = 0,
    eps: float = 1e-6, interpolation: str = "bicubic", offset: float = 0.0,
) -> VisionTransformer:  # fmt: skip
    """An encoder with positions for `grid` x `grid` patches; the defaults are DINOv2's ViT-B/14.

    `mlp` is a row of transformer.MLPS, `interpolation` of positions a row of INTERPOLATIONS with its `offset`;
    `registers` are tokens that hold no patch, `project` is the width of the answer, or 0 for that of the blocks.
    Raises ValueError for what cannot be.
    """
    for kind, name, known in (("mlp", mlp, MLPS), ("interpolation", interpolation, INTERPOLATIONS)):
        if name not in known:
            raise ValueError(f"no {kind} '{name}'; known: {', '.join(known)}")
    if min(width, depth, heads, patch, grid) < 1 or width % heads:
        raise ValueError(
            f"width, depth, heads, patch and grid must be at least 1, and heads divide the width; got {width}, "
            f"{depth}, {heads}, {patch}, {grid}"
        )
    tokens = dict(grid=grid, registers=registers, interpolation=interpolation, offset=offset)
    block = dict(heads=heads, mlp=mlp, layer_scale=layer_scale, eps=eps)
    return VisionTransformer(
        width, depth, patch=patch, tokens=tokens, block=block, pre_norm=pre_norm, project=project, rngs=rngs
    )

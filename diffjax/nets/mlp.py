"""A residual multilayer perceptron for points: the network of the toy laws."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .embeddings import Embedding


class Mlp(nnx.Module):
    """(x [B, *S], level [B], label [B] or None) -> [B, *S] float32."""

    def __init__(self, features: int, width: int, *, depth: int, classes: int, dtype, rngs: nnx.Rngs):
        zeros = nnx.initializers.zeros_init()
        self.dtype = dtype
        self.embed = Embedding(width, classes, dtype=dtype, rngs=rngs)
        self.stem = nnx.Linear(features, width, dtype=dtype, rngs=rngs)
        self.film = nnx.List([nnx.Linear(width, 2 * width, dtype=dtype, rngs=rngs) for _ in range(depth)])
        self.blocks = nnx.List([nnx.Linear(width, width, dtype=dtype, rngs=rngs) for _ in range(depth)])
        self.head = nnx.Linear(width, features, kernel_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, x, level, cond=None, *, key=None):
        emb = self.embed(level, cond)
        h = self.stem(x.reshape(len(x), -1).astype(self.dtype))
        for film, block in zip(self.film, self.blocks, strict=True):
            scale, shift = jnp.split(film(emb), 2, axis=-1)
            h = h + block(jax.nn.silu(h * (1 + scale) + shift))
        return self.head(jax.nn.silu(h)).reshape(x.shape).astype(jnp.float32)


def mlp(
    shape: tuple[int, ...], classes: int, *, rngs: nnx.Rngs, width: int = 128, depth: int = 4, dtype: str = "float32"
) -> Mlp:
    """A residual MLP for data of any shape, flattened; `depth` blocks of `width`.  dtype is that of the arithmetic."""
    return Mlp(int(np.prod(shape)), width, depth=depth, classes=classes, dtype=jnp.dtype(dtype), rngs=rngs)

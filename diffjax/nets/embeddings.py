"""What a network is told beside x: the noise level and the condition, as one vector per row.

The level is spread over sines and cosines of geometric frequencies (Vaswani et al. 2017; Ho et al. 2020, appendix B); a
class is a row of a table with one more row than there are classes: the last, the null class, means "unconditional".
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int


def fourier(level: Float[Array, "B"], width: int, *, highest: float = 1000.0) -> Float[Array, "B width"]:
    """Sines and cosines of level times frequencies from 1/10 to `highest`, geometric."""
    frequencies = jnp.asarray(np.geomspace(0.1, highest, width // 2), jnp.float32)
    angles = level.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class Embedding(nnx.Module):
    """(level [B], label [B] or None) -> [B, width]; label `classes`, or no label at all, is the null class."""

    def __init__(self, width: int, classes: int, *, dtype, rngs: nnx.Rngs):
        if width < 2 or width % 2:
            raise ValueError(f"the embedding of the level needs an even width of at least 2; got {width}")
        self.classes, self.width, self.dtype = classes, width, dtype
        self.hidden = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        if classes:
            self.label = nnx.Embed(
                classes + 1, width, embedding_init=nnx.initializers.normal(1.0), dtype=dtype, rngs=rngs
            )

    def __call__(self, level: Float[Array, "B"], label: Int[ArrayLike, "B"] | None) -> Float[Array, "B width"]:
        h = self.out(jax.nn.silu(self.hidden(fourier(level, self.width).astype(self.dtype))))
        if self.classes:
            h = h + self.label(jnp.full(level.shape, self.classes) if label is None else jnp.asarray(label))
        return jax.nn.silu(h)

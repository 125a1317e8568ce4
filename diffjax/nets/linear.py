"""Linear layers, as products of two matrices.

    y_r = x_r W + b        r over every axis of x but the last, W [I, O]

and so, back, dx = dy W^T and dW = x^T dy.  Written with more axes these are the same numbers, but XLA's CPU compiler
then transposes W and dy, as large as they are, before it multiplies them: an eighth of a transformer's training step.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Linear(nnx.LinearGeneral):
    """nnx.LinearGeneral of the last axis alone, by `product`: Linear(I, O) or Linear(I, (n, O)).

    Of its options use_bias, dtype and the initialisers have a meaning.
    """

    def __call__(self, x: Float[Array, "*N I"]) -> Float[Array, "..."]:  # type: ignore[override]
        given = (x, self.kernel[...]) if self.bias is None else (x, self.kernel[...], self.bias[...])
        return product(*self.promote_dtype(given, dtype=self.dtype))


def product(
    x: Float[Array, "*N I"], kernel: Float[Array, "I *O"], bias: Float[Array, "*O"] | None = None
) -> Float[Array, "..."]:
    """x W + b.  Several axes of O become one only where no mesh can have split the last of them."""
    rows, outputs = x.shape[:-1], kernel.shape[1:]
    flat = (math.prod(outputs),) if jax.device_count() == 1 else outputs
    y = jnp.tensordot(x.reshape(math.prod(rows), x.shape[-1]), kernel.reshape(len(kernel), *flat), 1)
    y = y if bias is None else y + bias.reshape(1, *flat)
    return y.reshape(*rows, *outputs)

"""Scaled dot-product attention (Vaswani et al. 2017), by the kernel that is best on the machine at hand.

    softmax(q k^T / sqrt(D)) v        over the keys, softmax in float32

On a GPU in half precision this is cuDNN's fused kernel, elsewhere two batched products: on a CPU heads are put before
positions first, which its products want.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

FUSED = (jnp.bfloat16, jnp.float16)  # what cuDNN's kernel takes


def attend(
    q: Float[Array, "B N H D"],
    k: Float[Array, "B M H D"],
    v: Float[Array, "B M H D"],
    mask: Bool[Array, "B M"] | None = None,
) -> Float[Array, "B N H D"]:
    """Every query reads every key that `mask` leaves in."""
    backend = jax.default_backend()
    if backend == "cpu":
        return _batched(q, k, v, mask)
    fused = backend == "gpu" and q.dtype in FUSED and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
    wide = None if mask is None else mask[:, None, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=wide, implementation="cudnn" if fused else None)


def _batched(q, k, v, mask):
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))  # [B, H, N, D]
    scores = jnp.einsum("bhnd,bhmd->bhnm", q, k, preferred_element_type=jnp.float32) / jnp.sqrt(q.shape[-1])
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bhnm,bhmd->bhnd", weights, v).swapaxes(1, 2)

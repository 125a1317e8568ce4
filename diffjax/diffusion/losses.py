"""The loss: draw t, corrupt, denoise, compare.

    L = E_{t, x_0, x_t}  w(t) |x0_hat(x_t, t) - x_0|^2

Every loss of the field is this one under another weight and another law of t (Kingma & Gao 2023).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Shaped

from .sampling import row_keys
from .types import Denoise, Keys, Process, Times

X = PyTree[Shaped[Array, "B ..."]]  # [B, *S], or for a product of processes a dict of such


def diffusion_loss(
    key: Keys, denoise: Denoise, process: Process, *, times: Times, x0: X, cond: Any = None
) -> Float[Array, "B"]:
    """The loss of every row, averaged over its elements.  `denoise` has its params bound."""
    t, keys = levels(key, times, len(jax.tree.leaves(x0)[0]))
    return loss_at(keys, denoise, process, t=t, x0=x0, cond=cond)


def levels(key: Keys, times: Times, n: int) -> tuple[Float[Array, "n"], Keys]:
    """(t, keys) of n rows: drawn for all of them at once, whatever part of them is then worked on where and when."""
    time_key, row_key = jax.random.split(key)
    return times(time_key, n), row_keys(row_key, n)


def loss_at(
    key: Keys, denoise: Denoise, process: Process, *, t: Float[Array, "B ..."], x0: X, cond: Any
) -> Float[Array, "B"]:
    """The loss of every row at given times: what is averaged in training, and what is held fixed in evaluation.

    The mean over a row's elements; of a dict, the sum of its parts' means.
    """
    xt = process.corrupt(key, x0, t)
    loss = process.loss(x0, xt, t, denoise(xt, t, cond))
    parts = [jnp.mean(part.reshape(len(part), -1), axis=1) for part in jax.tree.leaves(loss)]
    return jnp.sum(jnp.stack(parts), axis=0)


def uncertainty(loss: Float[Array, "B"], log_variance: Float[Array, "B"]) -> Float[Array, "B"]:
    """The loss where a network u(level) learns its scale: loss / exp(u) + u (Karras et al. 2024, eq. 21).

    u is best where exp(u) is the mean loss of the level: every level then weighs alike (nets/uncertainty.py).
    """
    return loss * jnp.exp(-log_variance) + log_variance

"""The loss: draw t, corrupt, denoise, compare.

    L = E_{t, x_0, x_t}  w(t) |x0_hat(x_t, t) - x_0|^2

Every loss of the field is this one under another weight and another law of t (Kingma & Gao 2023).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .types import Denoise, Keys, Process, Times


def diffusion_loss(
    key: Keys, denoise: Denoise, process: Process, *, times: Times, x0: Float[Array, "B *S"], cond: Any = None
) -> Float[Array, "B"]:
    """The loss of every row, averaged over its elements.  `denoise` has its params bound."""
    time_key, noise_key = jax.random.split(key)
    return loss_at(noise_key, denoise, process, t=times(time_key, len(x0)), x0=x0, cond=cond)


def loss_at(
    key: Keys, denoise: Denoise, process: Process, *, t: Float[Array, "B"], x0: Float[Array, "B *S"], cond: Any
) -> Float[Array, "B"]:
    """The loss of every row at given times: what is averaged in training, and what is held fixed in evaluation."""
    xt = process.corrupt(key, x0, t)
    loss = process.loss(x0, xt, t, denoise(xt, t, cond))
    return jnp.mean(loss.reshape(len(x0), -1), axis=1)

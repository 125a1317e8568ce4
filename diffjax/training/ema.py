"""The exponential moving average of the parameters, which is what samples are drawn with (Song & Ermon 2020)."""

from typing import Any

import jax
import jax.numpy as jnp


def update(ema: Any, params: Any, step: jax.Array, *, decay: float) -> Any:
    """ema + (1 - d)(params - ema), with d = min(decay, (1 + step) / (10 + step)).

    The memory is short while there is little to remember.
    """
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: e + rate.astype(e.dtype) * (p - e), ema, params)

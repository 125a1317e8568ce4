"""How uncertain each noise level is, learned together with the network (losses.uncertainty).

u(level) = w . cos(2 pi (f level + phase)),        w = 0 at first                 the log of a level's mean loss
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class UncertaintyNet(NamedTuple):
    """A small network as two pure functions."""

    init: Callable  # key -> params
    apply: Callable  # (params, level [B]) -> u [B]


def uncertainty_net(features: int = 64) -> UncertaintyNet:
    """u(level), the log of the mean loss of a level: one linear layer on Fourier features (Karras et al. 2024, sec. 4).

    Frequencies are the quantiles of N(0, 1), phases spread by the golden ratio: nothing is drawn, and u starts at 0.
    """
    frequencies = np.array([NormalDist().inv_cdf((i + 0.5) / features) for i in range(features)])
    phases = np.arange(features) * 0.5 * (5**0.5 - 1) % 1

    def init(key):
        return {"weight": jnp.zeros(features)}

    def apply(params, level):
        f, phase = jnp.asarray(frequencies), jnp.asarray(phases)
        u = jnp.vectorize(lambda x: jnp.sum(params["weight"] * jnp.cos(2 * jnp.pi * (f * x + phase))))
        return u(level)

    return UncertaintyNet(init, apply)

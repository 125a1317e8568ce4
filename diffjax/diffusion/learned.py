"""What is learned beside the network: the noise schedule, and how uncertain each noise level is.

    gamma~(t) = a t + sum_i b_i sigmoid(c_i t + d_i),   a, b_i, c_i > 0               rises, with any shape
    gamma(t)  = gamma_min + (gamma_max - gamma_min) (gamma~(t) - gamma~(0)) / (gamma~(1) - gamma~(0))

is minus the log-SNR of a variance-preserving schedule (Kingma et al. 2021, appendix H).  The bound depends on gamma at
its ends alone, and the ends are fixed here; its shape decides how much an estimate of the bound varies from one t to
another.  So the shape is learned by gradient steps on that variance, never on the loss itself.

    u(level) = w . cos(2 pi (f level + phase))                                        the log of a level's mean loss

on fixed Fourier features, starting at 0, is learned together with the network (losses.uncertainty).
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from .schedules import from_gamma
from .types import Schedule

Params = dict[str, Array]


def init_monotone(key: Key[Array, ""], features: int = 64) -> Params:
    """Parameters of `monotone`: equal sigmoids, centred anywhere in [0, 1], on a line.  Near the straight line."""
    slopes = jnp.full(features, 10.0)
    return {
        "line": jnp.zeros(()),
        "heights": jnp.full(features, -math.log(features)),
        "slopes": slopes,
        "offsets": -slopes * jax.random.uniform(key, (features,)),
    }


def monotone(params: Params, *, gamma_min: float = -13.3, gamma_max: float = 5.0) -> Schedule:
    """The schedule of VDM: log-SNR falls from -gamma_min to -gamma_max along a learned curve, whatever the params."""
    line, heights, slopes = (jax.nn.softplus(params[name]) for name in ("line", "heights", "slopes"))

    @jnp.vectorize  # sums rather than matrix products, which accelerators round to few digits
    def rise(t):
        return line * t + jnp.sum(heights * jax.nn.sigmoid(slopes * t + params["offsets"]))

    def gamma(t):
        low, high = rise(jnp.asarray([0, 1], t.dtype))
        return gamma_min + (gamma_max - gamma_min) * (rise(t) - low) / (high - low)

    return from_gamma(gamma)


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

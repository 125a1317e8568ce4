"""A learned noise schedule.

    gamma~(t) = a t + sum_i b_i sigmoid(c_i t + d_i),   a, b_i, c_i > 0               rises, with any shape
    gamma(t)  = gamma_min + (gamma_max - gamma_min) (gamma~(t) - gamma~(0)) / (gamma~(1) - gamma~(0))

is minus the log-SNR of a variance-preserving schedule (Kingma et al. 2021, appendix H).  The bound depends on gamma at
its ends alone, and the ends are fixed here; its shape decides how much an estimate of the bound varies from one t to
another.  So the shape is learned by gradient steps on that variance, never on the loss itself.
"""

import math

import jax
import jax.numpy as jnp
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

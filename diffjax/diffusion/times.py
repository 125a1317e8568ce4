"""Which noise levels to train on, and on which to sample.

A law of training times is a function (key, n) -> t [n] in (0, 1]:

    uniform            t ~ U                                                         Ho et al. 2020
    stratified         one draw in each of n equal strata: lower variance            Kingma et al. 2021, appendix I.1
    logit_normal       logit t ~ N(mean, std^2)                                      Esser et al. 2024, eq. 19
    log_normal_sigma   log(sigma / alpha) ~ N(mean, std^2)                           Karras et al. 2022, table 1

A grid of sampling times is an array ts [n + 1] that falls from start to end; the last is usually 0, exactly data.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .schedules import time_of_log_snr
from .types import Schedule, Times

# Time 0 itself carries no noise and so teaches nothing; this is below what any network resolves.
SMALLEST = 1e-5


def _inside(u):
    """u in [0, 1] -> t in [SMALLEST, 1]."""
    return SMALLEST + (1 - SMALLEST) * u


def uniform(schedule: Schedule) -> Times:
    """Independent and uniform."""
    return lambda key, n: _inside(jax.random.uniform(key, (n,)))


def stratified(schedule: Schedule) -> Times:
    """Uniform, one draw per stratum of width 1/n from a single random offset (low discrepancy); rows in order."""
    return lambda key, n: _inside((jnp.arange(n) + jax.random.uniform(key)) / n)


def logit_normal(schedule: Schedule, mean: float = 0.0, std: float = 1.0) -> Times:
    """Levels in the middle more often than at the ends."""
    return lambda key, n: _inside(jax.nn.sigmoid(mean + std * jax.random.normal(key, (n,))))


def log_normal_sigma(schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> Times:
    """Noise-to-signal ratio log-normal, whatever the schedule."""

    def times(key, n):
        log_ratio = mean + std * jax.random.normal(key, (n,))
        return jnp.maximum(time_of_log_snr(schedule, -2 * log_ratio), SMALLEST)

    return times


TIMES = {
    "uniform": uniform,
    "stratified": stratified,
    "logit_normal": logit_normal,
    "log_normal_sigma": log_normal_sigma,
}


def grid(steps: int, *, start: float = 1.0, stop: float = 0.0) -> Float[Array, "points"]:
    """`steps` equal steps in t from `start` down to `stop`: [steps + 1].

    Raises ValueError if steps < 1 or not 0 <= stop < start <= 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    if not 0 <= stop < start <= 1:
        raise ValueError(f"a grid runs from start down to stop within [0, 1]; got start={start}, stop={stop}")
    return jnp.asarray(np.linspace(start, stop, steps + 1))

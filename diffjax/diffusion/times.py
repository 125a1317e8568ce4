"""Which noise levels to train on: a law of training times is a function (key, n) -> t [n] in (0, 1].

    uniform            t ~ U                                                         Ho et al. 2020
    stratified         one draw in each of n equal strata: lower variance            Kingma et al. 2021, appendix I.1
    logit_normal       logit t ~ N(mean, std^2)                                      Esser et al. 2024, eq. 19
    log_normal_sigma   log(sigma / alpha) ~ N(mean, std^2)                           Karras et al. 2022, table 1
    log_snr            log-SNR ~ U between its values at two times                   Song et al. 2021b, section 4
    discrete           t = k / T, k ~ U{1 ... T}: the calls of a chain               Ho et al. 2020

The density of `log_snr` is p(t) ~ -lambda'(t), with lambda = log-SNR: it is importance sampling for the bound and for
likelihood weighting, which weigh the error of eps by -lambda'(t) / 2 and -lambda'(t).  Under it the loss of weight
`simple` is the bound over half the range of lambda.
"""

import jax
import jax.numpy as jnp

from . import schedules
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
        return jnp.maximum(schedules.time_of_log_snr(schedule, -2 * log_ratio), SMALLEST)

    return times


def log_snr(schedule: Schedule, least: float = SMALLEST, most: float = 1 - SMALLEST) -> Times:
    """Log-SNR uniform between its values at the times `least` and `most`: it may be infinite at 0 and 1."""

    def times(key, n):
        first, last = schedules.log_snr(schedule, jnp.asarray([least, most]))
        return schedules.time_of_log_snr(schedule, first + (last - first) * jax.random.uniform(key, (n,)))

    return times


def discrete(schedule: Schedule, steps: int = 1000) -> Times:
    """The times of a chain of `steps` steps, all alike."""
    return lambda key, n: (1.0 + jax.random.randint(key, (n,), 0, steps)) / steps


TIMES = {row.__name__: row for row in (uniform, stratified, logit_normal, log_normal_sigma, log_snr, discrete)}

"""The one bridge between networks and mathematics: (params, x_t, t, cond) -> x0_hat.

Training differentiates it with respect to params; sampling binds params and walks along it.  Both call it in the same
way, so a network cannot be used otherwise than it was trained.  `on_schedule` alone moves it, and exactly.
"""

from collections.abc import Callable

import jax.numpy as jnp

from .schedules import log_snr, time_of_log_snr
from .types import Denoise, Process, Schedule, rows


def denoiser(process: Process, apply: Callable) -> Callable:
    """(params, xt [B, *S], t [B], cond, *, key=None) -> x0_hat [B, *S]: `Net.apply`, as the process reads it."""

    def denoise(params, xt, t, cond=None, *, key=None):
        x_in, level = process.prepare(xt, t)
        return process.estimate(apply(params, x_in, level, cond, key=key), xt, t)

    return denoise


def on_schedule(denoise: Denoise, *, trained: Schedule, driven: Schedule) -> Denoise:
    """A denoiser trained on one schedule, as the denoiser at the points of another.

    Two points of equal log-SNR differ by a factor only, which x_0 given x_t does not feel (Karras et al. 2022, eq. 10
    and appendix B).  Levels that `trained` does not reach are taken for its nearest end.
    """

    def moved(xt, t, cond=None):
        there = time_of_log_snr(trained, log_snr(driven, t))
        (alpha, sigma), (alpha_there, sigma_there) = driven(t), trained(there)
        scale = jnp.sqrt((alpha_there**2 + sigma_there**2) / (alpha**2 + sigma**2))
        return denoise(rows(scale, xt) * xt, there, cond)

    return moved

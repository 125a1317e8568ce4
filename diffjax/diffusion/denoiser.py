"""The one bridge between networks and mathematics: (params, x_t, t, cond) -> x0_hat.

Training differentiates it with respect to params; sampling binds params and walks along it.  Both call it in the same
way, so a network cannot be used otherwise than it was trained.
"""

from collections.abc import Callable

from .types import Process


def denoiser(process: Process, apply: Callable) -> Callable:
    """(params, xt [B, *S], t [B], cond, *, key=None) -> x0_hat [B, *S]: `Net.apply`, as the process reads it."""

    def denoise(params, xt, t, cond=None, *, key=None):
        x_in, level = process.prepare(xt, t)
        return process.estimate(apply(params, x_in, level, cond, key=key), xt, t)

    return denoise

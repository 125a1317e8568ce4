"""Inverse problems: draws of p(x_0 | y) from a denoiser of p(x_0).  Denoise -> Denoise.

Tweedie's formula (Efron 2011) for p(x_t), and for p(x_t | y) ~ p(x_t) p(y | x_t), gives

    E[x_0 | x_t, y] = E[x_0 | x_t] + sigma^2 / alpha  grad log p(y | x_t)

Rows differ in p(y | x_t): a network's answer (classifier), or that of a measurement y = A x_0 + noise if x_0 were
x0_hat(x_t) (dps), or spread about it (pigdm).  Where alpha = 0 the tilt reads 0 / 0 and is left out: start the grid
below 1 if the first step shall feel it.  dps and pigdm differentiate the network: a call costs about three.

These orders give the same, and no others: a tilt by a function of x_t (classifier) in another; such a tilt in each arm
of `extrapolate` or around it; `inpaint` in each arm of `extrapolate` or `classifier_free` or around it; `inpaint` in
`static_threshold` or around it, if what is known lies in the range.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jax.typing import ArrayLike
from jaxtyping import Array

from .guidance import Scale, all_rows, guess, require, value_at
from .types import Denoise, Schedule, rows


def tilted(denoise: Denoise, schedule: Schedule, log_likelihood: Callable, scale: Scale = 1.0) -> Denoise:
    """`denoise` moved by scale sigma^2 / alpha times the gradient in x_t of log_likelihood(xt, x0_hat, t, cond) -> [B].

    x0_hat = denoise(xt, t, cond) is differentiated too, if used.  Rows are independent if log_likelihood's are.
    """

    def moved(xt, t, cond):
        def total(xt):
            x0_hat = guess(denoise, xt, t, cond)
            value = log_likelihood(xt, x0_hat, t, cond)
            if value.shape != xt.shape[:1]:
                raise ValueError(f"the log-likelihood of {len(xt)} rows must be one number each; got {value.shape}")
            return value.sum(), x0_hat

        slope, x0_hat = jax.grad(total, has_aux=True)(xt)
        alpha, sigma = (rows(level, xt) for level in schedule(t))
        gain = jnp.where(alpha > 0, sigma**2 / jnp.where(alpha > 0, alpha, 1), 0)
        return x0_hat + value_at(scale, t, xt) * gain * slope

    return moved


def classifier(denoise: Denoise, schedule: Schedule, log_prob: Callable, scale: Scale = 1.0) -> Denoise:
    """Towards cond by a classifier of noisy data, log_prob(xt, t, cond) -> [B] (Dhariwal & Nichol 2021, section 4).

    scale 1 samples p(x_0 | cond) if `denoise` is of p(x_0); a larger one sharpens it, one below 0 leads away.
    """
    return tilted(denoise, schedule, lambda xt, x0_hat, t, cond: log_prob(xt, t, cond), scale)


def dps(
    denoise: Denoise, schedule: Schedule, measure: Callable, y: ArrayLike, *, noise_std: Scale, scale: Scale = 1.0
) -> Denoise:
    """Diffusion posterior sampling: p(y | x_t) = N(y; A(x0_hat), noise_std^2 I) (Chung et al. 2023, section 3).

    measure: [B, *S] -> [B, *M], row by row, any differentiable A; y [B, *M], or one [*M] for all rows.  Exact as
    sigma -> 0; where x_0 is still uncertain it pulls too hard, so a larger noise_std, which may depend on t, is safer.
    """
    require(lambda std: std > 0, f"noise_std must be positive; got {noise_std}; use inpaint for exact data", noise_std)
    require(lambda w: w >= 0, f"scale must be at least 0, for a negative one defines no law; got {scale}", scale)

    def log_likelihood(xt, x0_hat, t, cond):
        residual = _residual(measure, y, x0_hat)
        return -0.5 * jnp.square(residual / value_at(noise_std, t, residual)).reshape(len(xt), -1).sum(axis=1)

    return tilted(denoise, schedule, log_likelihood, scale)


def pigdm(
    denoise: Denoise, schedule: Schedule, measure: Callable, y: ArrayLike, *,
    noise_std: Scale, data_std: ArrayLike = 1.0, iterations: int = 100,
) -> Denoise:  # fmt: skip
    """Pseudo-inverse guidance: p(y | x_t) = N(y; A x0_hat, r^2 A A^T + noise_std^2 I) (Song et al. 2023, section 3).

    r^2 = data_std^2 sigma^2 / (alpha^2 data_std^2 + sigma^2) is the variance of x_0 given x_t, so this is exact for
    Gaussian data of that std (a number, or one per element [*S]).  measure and y are as in `dps`; A is linear (others
    are linearised at x0_hat), and A A^T is inverted by at most `iterations` of conjugate gradients, row by row.
    """
    require(lambda std: std > 0, f"noise_std must be positive; got {noise_std}; use inpaint for exact data", noise_std)
    require(lambda std: std > 0, f"data_std must be positive; got {data_std}", data_std)

    def row(x0_hat, variance, noise, residual):
        A = jax.linearize(lambda x0: measure(x0[None])[0], x0_hat)[1]
        adjoint = jax.linear_transpose(A, x0_hat)
        tolerance = float(jnp.finfo(residual.dtype).eps) ** 0.75
        covariance = lambda u: A(variance * adjoint(u)[0]) + noise * u  # noqa: E731
        return -0.5 * jnp.vdot(residual, cg(covariance, residual, tol=tolerance, maxiter=iterations)[0])

    def log_likelihood(xt, x0_hat, t, cond):
        alpha, sigma = (rows(level, xt) for level in schedule(t))
        data = all_rows(data_std, xt, "data_std") ** 2
        variance = data * sigma**2 / (alpha**2 * data + sigma**2)
        residual = _residual(measure, y, x0_hat)
        noise = jnp.broadcast_to(value_at(noise_std, t, residual) ** 2, residual.shape)
        return jax.vmap(row)(jax.lax.stop_gradient(x0_hat), variance, noise, residual)

    return tilted(denoise, schedule, log_likelihood)


def inpaint(denoise: Denoise, known: ArrayLike, mask: ArrayLike) -> Denoise:
    """x0_hat with what is known put in: `known` where mask is 1, both [*S] or [B, *S] (Wang et al. 2023, for masks).

    The rest feels it through x_t alone: exact where known, rough elsewhere; `solvers.inpainting.repaint` is closer.
    """
    require(lambda m: (m == 0) | (m == 1), "mask must be 1 where known and 0 elsewhere; got other values", mask)

    def filled(xt, t, cond):
        here = all_rows(mask, xt, "mask") != 0
        return jnp.where(here, all_rows(known, xt, "known"), guess(denoise, xt, t, cond))

    return filled


def _residual(measure: Callable, y: ArrayLike, x0_hat: Array) -> Array:
    """y - A(x0_hat), [B, *M]."""
    measured = measure(x0_hat)
    if measured.shape[:1] != x0_hat.shape[:1]:
        raise ValueError(f"measure must keep the rows of x_0 {x0_hat.shape}, as [B, *M]; got {measured.shape}")
    return all_rows(y, measured, "y") - measured

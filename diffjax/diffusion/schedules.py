"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps, with t in [0, 1].

A schedule is one function t -> (alpha, sigma).  Everything else is derived from it here, once for all rows:

    log-SNR           lambda(t) = 2 log(alpha / sigma)                            falls from +inf to its least value
    its inverse       by bisection
    the forward SDE   dx = f x dt + g dW,  f = alpha' / alpha,  g^2 = 2 sigma sigma' - 2 f sigma^2       by autodiff
    its moments       x_t | x_s ~ N(a x_s, v),  a = alpha_t / alpha_s,  v = sigma_t^2 - a^2 sigma_s^2

(Kingma et al. 2021, "Variational Diffusion Models", section 3; Karras et al. 2022, appendix B.)
Time 0 is exactly data: every schedule reads (1, 0) there, so no sampler needs a special last step (see `check`).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .types import Schedule

PURE_NOISE = 1e-4  # an alpha below this leaves nothing of x_0 in x


def linear(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """Variance preserving with beta(t) linear in t (Ho et al. 2020; Song et al. 2021, eq. 32-33)."""

    def schedule(t):
        log_alpha = -0.25 * t**2 * (beta_max - beta_min) - 0.5 * t * beta_min
        return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))

    return schedule


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """The signal of `linear` under less noise: sigma = 1 - alpha^2 (Song et al. 2021, eq. 12 and 29)."""
    vp = linear(beta_min, beta_max)
    return lambda t: (vp(t)[0], vp(t)[1] ** 2)


def cosine() -> Schedule:
    """Variance preserving on a circle: alpha = cos(pi t / 2) (Nichol & Dhariwal 2021; Salimans & Ho 2022)."""
    # cos by way of sin: rounds to exactly 0 at t = 1, never below
    return lambda t: (jnp.sin(0.5 * jnp.pi * (1 - t)), jnp.sin(0.5 * jnp.pi * t))


def sigmoid(start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """Variance preserving with alpha^2 a sigmoid of t, rescaled to run from 1 to 0 (Jabri et al. 2022, algorithm 1)."""
    low, high = start / tau, end / tau

    def schedule(t):
        here, width = low + t * (high - low), high - low
        # sigmoid(a) - sigmoid(b) = -sigmoid(a) sigmoid(-b) expm1(b - a): exact where it is small
        left = jax.nn.sigmoid(high) * jax.nn.sigmoid(-here) * jnp.expm1((t - 1) * width)
        gone = jax.nn.sigmoid(here) * jax.nn.sigmoid(-low) * jnp.expm1(-t * width)
        return jnp.sqrt(left / (left + gone)), jnp.sqrt(gone / (left + gone))

    return schedule


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Schedule:
    """Variance exploding, sigma geometric in t (Song et al. 2021, eq. 30)."""

    def schedule(t):
        sigma = sigma_min * jnp.exp(t * math.log(sigma_max / sigma_min))
        return jnp.ones_like(t), jnp.where(t > 0, sigma, 0)

    return schedule


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """Variance exploding, sigma^(1/rho) linear in t: a uniform grid in t is EDM's (Karras et al. 2022, eq. 5)."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def schedule(t):
        sigma = (low + t * (high - low)) ** rho
        return jnp.ones_like(t), jnp.where(t > 0, sigma, 0)

    return schedule


def flow(shift: float = 1.0) -> Schedule:
    """The straight line (Lipman et al. 2023), at t' = shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23)."""
    # alpha = 1 - t', sigma = t'; shift > 1 lingers in the noise, for large data
    return lambda t: ((1 - t) / (1 + (shift - 1) * t), shift * t / (1 + (shift - 1) * t))


def vdm(gamma_min: float = -13.3, gamma_max: float = 5.0) -> Schedule:
    """Variance preserving with log-SNR linear in t, from -gamma_min to -gamma_max (Kingma et al. 2021)."""
    return from_gamma(lambda t: gamma_min + (gamma_max - gamma_min) * t)


def from_gamma(gamma: Callable[[Array], Array]) -> Schedule:
    """Variance preserving with log-SNR -gamma(t) for any rising gamma (Kingma et al. 2021, eq. 3)."""

    def schedule(t):
        level = gamma(t)
        alpha, sigma = jnp.sqrt(jax.nn.sigmoid(-level)), jnp.sqrt(jax.nn.sigmoid(level))
        return jnp.where(t > 0, alpha, 1), jnp.where(t > 0, sigma, 0)

    return schedule


def discrete(beta_start: float = 1e-4, beta_end: float = 0.02, steps: int = 1000) -> Schedule:
    """The DDPM chain (Ho et al. 2020): betas linear in k, alpha^2(k / steps) = prod_{i <= k} (1 - beta_i)."""
    return from_betas(np.linspace(beta_start, beta_end, steps))


def scaled_linear(beta_start: float = 0.00085, beta_end: float = 0.012, steps: int = 1000) -> Schedule:
    """The chain of latent diffusion: the square roots of betas linear in k (Rombach et al. 2022, their code)."""
    return from_betas(np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2)


def cosine_betas(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Schedule:
    """The chain on a circle that starts a little late, its last betas clipped (Nichol & Dhariwal 2021, eq. 17)."""
    kept = np.cos(0.5 * np.pi * (np.linspace(0, 1, steps + 1) + offset) / (1 + offset)) ** 2
    return from_betas(np.minimum(1 - kept[1:] / kept[:-1], largest))


def from_betas(betas: np.ndarray) -> Schedule:
    """Any discrete chain as a schedule: exact at t = k / T, log alpha linear in between.

    Raises ValueError unless every beta lies in (0, 1).
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not ((betas > 0) & (betas < 1)).all():
        raise ValueError(f"betas must be one array of numbers strictly between 0 and 1; got shape {betas.shape}")
    knots = np.linspace(0, 1, len(betas) + 1)
    log_alphas = np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-betas))])

    def schedule(t):
        log_alpha = jnp.interp(t, knots.astype(t.dtype), log_alphas.astype(t.dtype))
        return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))

    return schedule


SCHEDULES = {
    "linear": linear, "sub_vp": sub_vp, "cosine": cosine, "sigmoid": sigmoid, "ve": ve, "edm": edm, "flow": flow,
    "vdm": vdm, "discrete": discrete, "scaled_linear": scaled_linear, "cosine_betas": cosine_betas,
}  # fmt: skip


def shifted(schedule: Schedule, shift: float) -> Schedule:
    """Log-SNR lowered by 2 log(shift) at every t, alpha^2 + sigma^2 kept (Hoogeboom et al. 2023, section 3.1)."""

    def moved(t):
        alpha, sigma = schedule(t)
        scale = jnp.sqrt((alpha**2 + sigma**2) / (alpha**2 + (shift * sigma) ** 2))
        return scale * alpha, scale * shift * sigma

    return moved


def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """A variance-preserving schedule, its alpha moved and stretched to end at 0 (Lin et al. 2024, algorithm 1).

    alpha(0) = 1 stays; Lin et al. keep alpha(1 / T).  Raises ValueError unless alpha^2 + sigma^2 = 1 throughout.
    """
    total = jnp.sum(jnp.stack(schedule(jnp.linspace(0, 1, 9))) ** 2, axis=0)
    if not jnp.allclose(total, 1, atol=1e-4):
        raise ValueError(f"zero_terminal_snr needs alpha^2 + sigma^2 = 1, as 'linear' has; got {total.tolist()}")

    def stretched(t):
        (alpha, sigma), (last, _) = schedule(t), schedule(jnp.ones_like(t))
        left = alpha - last + jax.lax.stop_gradient(jnp.maximum(last - alpha, 0))  # rounding is not to make it negative
        lost = sigma**2 / (1 + alpha) / (1 - last)  # 1 - alpha, stretched: exact where it is small
        return left / (1 - last), jnp.sqrt(lost * (2 - lost))

    return stretched


def rates(schedule: Schedule, t: Float[Array, "*B"]) -> tuple[Array, Array]:
    """The time derivatives (alpha', sigma') at t, each shaped like t."""
    _, slopes = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    return slopes


def log_snr(schedule: Schedule, t: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """lambda(t) = 2 log(alpha / sigma): +inf at t = 0, -inf where alpha = 0."""
    alpha, sigma = schedule(t)
    return 2 * (jnp.log(alpha) - jnp.log(sigma))


def time_of_log_snr(schedule: Schedule, value: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The t in [0, 1] at which log_snr falls through `value`; values out of reach give the nearer end."""

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        above = log_snr(schedule, middle) > value
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    bits = jnp.finfo(value.dtype).nmant + 4  # to the last bit of the number type
    low, high = jax.lax.fori_loop(0, bits, halve, (jnp.zeros_like(value), jnp.ones_like(value)))
    return 0.5 * (low + high)


def drift_and_diffusion(schedule: Schedule, t: Float[Array, "*B"]) -> tuple[Array, Array]:
    """(f, g) of the forward SDE dx = f x dt + g dW whose marginals are the schedule's; singular where alpha = 0."""
    alpha, sigma = schedule(t)
    alpha_rate, sigma_rate = rates(schedule, t)
    f = alpha_rate / alpha
    return f, jnp.sqrt(jnp.maximum(2 * sigma * (sigma_rate - f * sigma), 0))


def transition(schedule: Schedule, t: Float[Array, "*B"], s: Float[Array, "*B"]) -> tuple[Array, Array]:
    """(a, variance) of x_t given x_s, s <= t, which is N(a x_s, variance): the moments of the SDE from s to t."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    a = alpha_t / alpha_s
    ratio = (
        a * sigma_s / jnp.where(sigma_t > 0, sigma_t, 1)
    )  # in [0, 1], but for rounding: no difference of large numbers
    return a, sigma_t**2 * jnp.maximum(1 - ratio, 0) * (1 + ratio)


def check(schedule: Schedule) -> None:
    """Raise ValueError, saying where, unless a schedule obeys the laws above; to be called outside of `jax.jit`."""
    t = np.linspace(0, 1, 1001)
    alpha, sigma = (np.asarray(part, float) for part in schedule(jnp.asarray(t)))
    with np.errstate(divide="ignore", invalid="ignore"):
        falls = np.diff(2 * (np.log(alpha) - np.log(sigma)), prepend=np.inf) < 0
    for holds, law in (
        (np.isfinite(alpha) & np.isfinite(sigma), "be finite"),
        ((t > 0) | (alpha == 1) & (sigma == 0), "be exactly data, (1, 0), at t = 0"),
        ((t < 1) | (sigma > 0), "have noise at t = 1"),
        ((t == 0) | falls, "fall in log-SNR"),
    ):
        for i in np.flatnonzero(~holds):
            here = f"alpha={alpha[i]:g}, sigma={sigma[i]:g} at t={t[i]:g}"
            raise ValueError(f"a schedule must {law}; this one reads {here}: change its options or its formula")


def ends_in_pure_noise(schedule: Schedule) -> bool:
    """Whether alpha(1) = 0, so that x_0 cannot be read off x_1 and eps; False of a traced schedule, which hides it."""
    with jax.ensure_compile_time_eval():
        alpha, _ = schedule(jnp.ones(()))
    return not isinstance(alpha, Tracer) and float(alpha) < PURE_NOISE

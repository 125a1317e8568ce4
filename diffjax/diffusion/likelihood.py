"""log p(x_0) in nats, by the probability-flow ODE or bounded from below, with the errors of that number.

In y = x / alpha and r = log(sigma / alpha) the flow is dy/dr = y - x0_hat for every schedule, and along it
d log p(y) / dr = div x0_hat - d (Song et al. 2021, eq. 39).  The d integrates to a number, and the state is walked as
z = c y, c = alpha / (alpha^2 + sigma^2)^(1/2), which neither grows nor shrinks:
    dz/dr = c (c z - x0_hat),    log p(x) = log N(x_end / sigma_end; 0, I) - d log sigma - int alpha div_x x0_hat dr
The bound, of ancestral steps t -> s from N(0, sigma^2) (Kingma et al. 2021, section 4; SNR = alpha^2 / sigma^2):
    -log p(x_0) <= SNR(1) / 2 |x_0|^2 + E[-log p(x_0 | x_last)] + sum (SNR(s) - SNR(t)) / 2 E|x_0 - x0_hat(x_t)|^2
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .dequantization import bits_per_dim, gaussian  # noqa: F401  nats are read in bits
from .sampling import row_keys
from .schedules import log_snr, time_of_log_snr
from .types import Denoise, Keys, Schedule, normal, rows

LAST_LOG_SNR = -14.0  # where alpha(1) = 0: of a number of variance 1, N(0, sigma^2) then misses e^-14 / 2 = 4e-7 nats
CHUNK = 32  # Jacobian products at a time: bounds memory


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Likelihood:
    """log p(x_0) of every row and its errors, all [B] in nats, and how they were obtained.  Passes through jit."""

    nats: Array
    standard_error: Array  # of the estimator's own noise; 0 if it has none
    solver_error: Array  # of the integration; 0 for bounds, which have no solver
    protocol: str = field(metadata={"static": True})


class Divergence(NamedTuple):
    """tr J of every row, from vectors of random signs drawn once for a whole trajectory (Grathwohl et al. 2019)."""

    probes: int
    traces: Callable  # (v -> J v, probes [n, B, d]) -> [B, m]: equally good estimates; their spread is the error
    protocol: str


def exact() -> Divergence:
    """The trace itself: a product per dimension, no key, no error."""
    axes = lambda probes: jnp.eye(probes.shape[2], dtype=probes.dtype)[:, None]  # noqa: E731
    return Divergence(0, lambda push, probes: _products(push, axes(probes)).sum(1, keepdims=True), "exact trace")


def hutchinson(probes: int = 2) -> Divergence:
    """The mean of v J v over `probes` >= 2 vectors v (Hutchinson 1989): unbiased, error ~ probes^(-1/2)."""
    if probes < 2:
        raise ValueError(f"hutchinson got probes={probes}, but a standard error takes at least 2; or use exact()")
    return Divergence(probes, _products, f"Hutchinson's trace by {probes} products")


def hutch_plus_plus(probes: int = 6) -> Divergence:
    """The exact trace on the range of a sketch, Hutchinson's on the rest, in `probes` products (Meyer et al. 2021)."""
    if probes < 6 or probes % 3:
        raise ValueError(f"hutch_plus_plus got probes={probes}, but spends thirds of at least 2: use 6, 9, 12, ...")

    def traces(push, probes):
        sketch, rest = jnp.split(probes, 2)
        reached = jax.lax.stop_gradient(jax.lax.map(push, sketch, batch_size=CHUNK))  # every q is unbiased
        q = jnp.moveaxis(jnp.linalg.qr(jnp.moveaxis(reached, 0, -1))[0], -1, 0)
        outside = rest - jnp.einsum("kbd,kbn->nbd", q, jnp.einsum("kbd,nbd->kbn", q, rest))
        return _products(push, q).sum(1, keepdims=True) + _products(push, outside)

    return Divergence(2 * probes // 3, traces, f"Hutch++ trace by {probes} products")


DIVERGENCES = {"exact": exact, "hutchinson": hutchinson, "hutch_plus_plus": hutch_plus_plus}


def ode(
    denoise: Denoise, schedule: Schedule, x0: Float[Array, "B *S"], *, steps: int, divergence: Divergence,
    key: Keys | None = None, cond: Any = None, least: float = 1e-3,
) -> Likelihood:  # fmt: skip
    """The log density that the flow from N(0, sigma^2) gives x0, read as x at t = `least`; 6 `steps` calls.

    It is the sampler's that starts from that prior; of the data's own the prior misses about var(x_0) / 2 times the
    last SNR in nats a number, 2e-5 for `linear`.  Rows must not meet in `denoise`.  Keys: one, or one per row.  Raises
    ValueError for an odd number of steps (the solver error compares with half as many), or for probes without a key.
    """
    if steps < 2 or steps % 2:
        raise ValueError(f"got steps={steps}, but the solver error compares with half as many: use an even number")
    if key is None and divergence.probes:
        raise ValueError(f"{divergence.protocol} got no key to draw them: pass key=jax.random.key(0), or use exact()")
    high, low = _range(schedule, least, x0.dtype)
    alpha, sigma = schedule(ts := time_of_log_snr(schedule, jnp.linspace(high, low, 2 * steps + 1)))
    x, norm = x0.reshape(len(x0), d := x0[0].size), jnp.hypot(alpha, sigma)
    key = jax.random.key(0) if key is None else key  # which draws nothing
    keys, like = key if key.ndim else row_keys(key, len(x)), jnp.zeros((len(x), divergence.probes, d), x.dtype)
    probes = jnp.copysign(1.0, normal(keys, like)).swapaxes(0, 1)

    def slope(state, point):
        t, alpha, norm = point
        rule = lambda x: denoise(x.reshape(x0.shape), jnp.full(len(x), t), cond).reshape(x.shape)  # noqa: E731
        x0_hat, push = jax.linearize(rule, norm * state[:, :d])
        traces = divergence.traces(lambda v: push(jnp.broadcast_to(v, x.shape)), probes)
        return jnp.concatenate([alpha / norm * (alpha / norm * state[:, :d] - x0_hat), -alpha * traces], axis=1)

    start = jnp.concatenate([x / norm[0], divergence.traces(lambda _: 0 * x, probes)], axis=1)
    ends = _runge_kutta(slope, start, jnp.stack([ts, alpha, norm], axis=1), (high - low) / (2 * steps))
    prior = jax.scipy.stats.norm.logpdf(ends[:, :, :d] * norm[-1] / sigma[-1])
    fine, coarse = ends[:, :, d:] + jnp.sum(prior - jnp.log(sigma[0]), axis=2, keepdims=True)
    error = jnp.std(fine, axis=1, ddof=min(1, fine.shape[1] - 1)) / fine.shape[1] ** 0.5  # one alone is exact
    how = f"N(0, sigma^2) flows to t = {least} in {steps} Runge-Kutta steps of log-SNR, {divergence.protocol}"
    return Likelihood(fine.mean(1), error, jnp.abs((fine - coarse).mean(1)) / 15, f"{how}, {6 * steps} calls")


def elbo(
    key: Keys, denoise: Denoise, schedule: Schedule, x0: Float[Array, "B *S"], *, ts: Float[Array, "points *B"],
    draws: int, **options: Any,
) -> Likelihood:  # fmt: skip
    """A lower bound on log p(x0) of ancestral sampling along ts, from `draws` draws of every step.

    ts is one grid, one per row or one per element.  Options: cond; `reconstruction` (x_last, x0, alpha, sigma) -> nats
    [B], else `gaussian`.  Raises ValueError unless draws is even, and ts falls and stops above 0, where SNR = inf.
    """
    if not isinstance(ts, Tracer) and not (np.diff(np.asarray(ts), axis=0, append=0) < 0).all():
        raise ValueError(f"elbo got ts down to {np.asarray(ts).min()}, but ts must fall and stop above 0, as at 1e-3")
    snr = jnp.exp(log_snr(schedule, ts))
    path = (lambda _: (ts[:-1], 0.5 * jnp.diff(snr, axis=0))), snr[0], ts[-1]
    how = f"lower bound, {len(ts) - 1} ancestral steps from N(0, sigma^2), {draws} draws, {draws * (len(ts) - 1)} calls"
    return _bound(key, denoise, schedule, x0, path=path, draws=draws, how=how, **options)


def elbo_continuous(
    key: Keys, denoise: Denoise, schedule: Schedule, x0: Float[Array, "B *S"], *, draws: int, least: float = 1e-3,
    **options: Any,
) -> Likelihood:  # fmt: skip
    """`elbo` as the steps shrink: int SNR / 2 E|x_0 - x0_hat|^2 d log SNR, in strata of two draws (section 5)."""
    high, low = _range(schedule, least, x0.dtype)
    level = lambda u: low + (high - low) * u[None]  # noqa: E731
    terms = lambda u: (time_of_log_snr(schedule, level(u)), 0.5 * (high - low) * jnp.exp(level(u)))  # noqa: E731
    path = terms, jnp.exp(low), jnp.asarray(least, x0.dtype)
    how = f"lower bound, continuous from N(0, sigma^2) to t = {least}, {draws} calls"
    return _bound(key, denoise, schedule, x0, path=path, draws=draws, how=how, **options)


def _bound(key, denoise, schedule, x0, *, path, draws, how, cond=None, reconstruction=gaussian):
    """path: u [B] in [0, 1] -> (times [n, ...], weights of squared errors [n, ...]), the first SNR, the last time."""
    if draws < 2 or draws % 2:
        raise ValueError(f"got draws={draws}, but the standard error is that of pairs: use an even number")
    (terms, first_snr, last), fold = path, jax.vmap(jax.random.fold_in, (0, None))
    row = key if key.ndim else row_keys(key, len(x0))
    total = lambda x: jnp.sum(x, axis=tuple(range(1, x.ndim)))  # noqa: E731

    def noised(key, t):
        alpha, sigma = (rows(level, x0) for level in schedule(t))
        return alpha * x0 + sigma * normal(key, x0), x0, alpha, sigma

    def draw(j):
        def add(nats, term):
            i, t, weight = term
            x0_hat = denoise(noised(fold(keys, i), t)[0], t if t.ndim else jnp.full(len(x0), t), cond)
            return nats - total(rows(weight, x0) * (x0_hat - x0) ** 2), None

        keys = fold(row, j)
        ts, weights = terms((j // 2 + jax.vmap(jax.random.uniform)(fold(keys, 0)).astype(x0.dtype)) / (draws // 2))
        start = reconstruction(*noised(fold(keys, 1), last)) - 0.5 * total(rows(first_snr, x0) * x0**2)
        return jax.lax.scan(add, start, (jnp.arange(2, len(ts) + 2), ts, weights))[0]

    nats = jax.lax.map(draw, jnp.arange(draws))
    error = jnp.sqrt(jnp.sum((nats[::2] - nats[1::2]) ** 2, axis=0)) / draws  # a pair's two draws are alike
    return Likelihood(nats.mean(0), error, jnp.zeros_like(error), how)


def _runge_kutta(slope, x, points, h):
    """The classical fourth order along points [2n + 1] at half steps, and with steps twice as long: [2, ...]."""

    def call(carry, stage):
        (start, k, end), (point, run, ahead, weight, last) = carry, stage
        k = slope(start[run] + ahead * h * k, point)
        end = end.at[run].add(weight * h * k)
        return (jnp.where(last, end, start), k, end), None

    n = len(points) // 2  # one scan over 4n calls and then 2n, so that `slope` appears once in the program
    run, step = np.repeat([0, 1], [4 * n, 2 * n]), np.r_[: 4 * n, : 2 * n] // 4
    table = np.array([[0, 1 / 2, 1 / 2, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]])
    ahead, weight = (np.tile(table, len(run) // 4) * (run + 1)).astype(x.dtype)
    half = np.tile([0, 1, 1, 2], len(run) // 4)
    stages = points[(run + 1) * (2 * step + half)], run, ahead, weight, half == 2
    return jax.lax.scan(call, (jnp.stack([x, x]), jnp.zeros_like(x), jnp.stack([x, x])), stages)[0][2]


def _products(push, vectors):
    return jax.lax.map(lambda v: jnp.sum(v * push(v), axis=1), vectors, batch_size=CHUNK).T  # v J v [B, n]


def _range(schedule, least, dtype):
    if not 0 < least < 1:
        raise ValueError(f"got least={least}, but it is a time between the data, at 0, and the noise, at 1")
    return jnp.maximum(log_snr(schedule, jnp.asarray([least, 1], dtype)), LAST_LOG_SNR)  # at `least`, at the end

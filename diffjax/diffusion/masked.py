"""Masked noise: every token of 0 ... V - 1 turns into the mask, V, at a random time of its own (Austin et al. 2021).

    q(x_t | x_0)           x_0 with probability alpha_t, else V             alpha of any schedule; sigma is not used
    q(x_s | x_t=V, x_0)    V with probability (1 - alpha_s) / (1 - alpha_t), else x_0
    E -log p(x_0)  <=  int -alpha' / (1 - alpha) E sum_masked -log p(x_0 | x_t) dt    Shi et al. 2024; Sahoo et al. 2024

x0_hat are logits [B, *S, V].  With the exact p(x_0 | x_t) the bound is tight, though a step draws tokens independently.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from .schedules import rates
from .types import Process, Schedule, Source, Time, Weight, rows

NEVER = -1e4  # the log-probability of what cannot be: finite even in float16, while its exp is 0 even in float64


def masked(schedule: Schedule, weight: Weight, vocabulary: int) -> Process:
    """Absorbing noise; its prior is all masks.  What is visible is certain and has no loss."""

    def corrupt(key, x0, t):
        return jnp.where(draw(jax.random.bernoulli, key, level(schedule, t, x0)[..., 0]), x0, vocabulary)

    def estimate(raw, xt, t):
        if raw.shape != (*xt.shape, vocabulary):
            raise ValueError(f"got logits {raw.shape}, expected {(*xt.shape, vocabulary)}: none stands for the mask")
        return jnp.where((xt == vocabulary)[..., None], raw, NEVER * (1 - jax.nn.one_hot(xt, vocabulary)))

    def loss(x0, xt, t, x0_hat):  # the weight may be infinite at t = 0, where nothing is masked
        return jnp.where(xt == vocabulary, rows(weight(schedule, t), xt), 0) * cross_entropy(x0_hat, x0)

    def reverse(key, xt, x0_hat, t, s):
        return categorical(key, posterior(schedule, xt, jax.nn.softmax(x0_hat), t=t, s=s)).astype(xt.dtype)

    prior, prepare = lambda key, like, t: jnp.full_like(like, vocabulary), lambda xt, t: (xt, t)
    return Process(schedule, prior, corrupt, prepare, estimate, loss, reverse)


def posterior(schedule: Schedule, xt: Integer[Array, "B *S"], p: Float[Array, "B *S V"], *, t: Time, s: Time) -> Array:
    """p(x_s = v | x_t) [B, *S, V + 1], the mask last, when x_0 has the law p."""
    alpha_t, alpha_s, mask = level(schedule, t, xt), level(schedule, s, xt), p.shape[-1]
    stay = jnp.minimum((1 - alpha_s) / jnp.maximum(1 - alpha_t, jnp.finfo(alpha_t.dtype).tiny), 1)  # at s = 0 exactly 0
    turned = jnp.concatenate([(1 - stay) * p, stay], axis=-1)
    return jnp.where((xt == mask)[..., None], turned, jax.nn.one_hot(xt, mask + 1))


def likelihood(schedule: Schedule, vocabulary: int):
    """(x_t [B, *S], t) -> q(x_t | x_0 = v) [B, *S, V]."""
    return lambda xt, t: (
        (a := level(schedule, t, xt)) * jax.nn.one_hot(xt, vocabulary) + (1 - a) * (xt == vocabulary)[..., None]
    )


def masked_elbo(schedule: Schedule, t: Time) -> Time:
    """The bound's weight, -alpha' / (1 - alpha); the bound sums over tokens, in nats."""
    return -rates(schedule, t)[0] / (1 - schedule(t)[0])


def level(schedule: Schedule, t: Time, like: Array) -> Float[Array, "B *S 1"]:
    """alpha, the probability that a token survives."""
    return jnp.broadcast_to(rows(schedule(t)[0], like), like.shape)[..., None]


def draw(sampler, noise: Source, *like: Array):
    """sampler(key, *like), row by row if every row has its key.  Raises ValueError for noise in place of keys."""
    if callable(noise):
        raise ValueError("tokens and products draw from keys, not from normal noise; sample without noise=")
    return jax.vmap(sampler)(noise, *like) if noise.ndim else sampler(noise, *like)


def categorical(key: Source, p: Float[Array, "B *S V"]) -> Integer[Array, "B *S"]:
    """Draws from p; jax's default mode would miss what is rare, in float32 (Zheng et al. 2024)."""
    return draw(lambda k, p: jax.random.categorical(k, jnp.log(p), mode="high"), key, p)


def cross_entropy(logits: Float[Array, "B *S V"], tokens: Integer[Array, "B *S"]) -> Float[Array, "B *S"]:
    """-log p(tokens), in nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]

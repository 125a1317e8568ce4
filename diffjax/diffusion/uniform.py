"""Uniform noise: every token of 0 ... V - 1 gives way to a random one in time (Austin et al. 2021, section 3.1).

With a = alpha_t / alpha_s, and [.] one or zero,

    q(x_t | x_0)        =  alpha_t [x_t = x_0] + (1 - alpha_t) / V           alpha of any schedule; sigma is not used
    q(x_t | x_s)        =  a [x_t = x_s] + (1 - a) / V
    q(x_s | x_t, x_0)   =  q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0)          Austin et al. 2021, eq. 3

A step draws x_s from the mean of this over p(x_0 | x_t), which keeps a token's marginal for the exact denoiser.  (Their
eq. 4 leaves the division out, and does not.)  The bound is a sum of KL(q(x_s | x_t, x_0) | p(x_s | x_t)) over steps.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from .masked import categorical, cross_entropy, draw, level
from .types import Process, Schedule, Time, Weight, rows

Tokens = Integer[Array, "B *S"]


def uniform(schedule: Schedule, weight: Weight, vocabulary: int) -> Process:
    """Noise towards equal probabilities, which are its prior at any t.  Every token has its cross-entropy as loss."""

    def anything(key, like):
        return jax.random.randint(key, like.shape, 0, vocabulary, like.dtype)

    def prior(key, like, t):
        return draw(anything, key, like)

    def corrupt(key, x0, t):
        def blur(key, x0, alpha):
            keep, other = jax.random.split(key)
            return jnp.where(jax.random.bernoulli(keep, alpha), x0, anything(other, x0))

        return draw(blur, key, x0, level(schedule, t, x0)[..., 0])

    def prepare(xt, t):
        return xt, t

    def estimate(raw, xt, t):
        if raw.shape != (*xt.shape, vocabulary):
            raise ValueError(f"got logits {raw.shape}, expected {(*xt.shape, vocabulary)}: one for each token")
        return raw

    def loss(x0, xt, t, x0_hat):
        return rows(weight(schedule, t), xt) * cross_entropy(x0_hat, x0)

    def reverse(key, xt, x0_hat, t, s):
        return categorical(key, posterior(schedule, xt, jax.nn.softmax(x0_hat), t=t, s=s)).astype(xt.dtype)

    return Process(schedule, prior, corrupt, prepare, estimate, loss, reverse)


def posterior(schedule: Schedule, xt: Tokens, p: Float[Array, "B *S V"], *, t: Time, s: Time) -> Float[Array, "B *S V"]:
    """p(x_s = v | x_t), when x_0 has the law p; x_s = x_t if s = t, also where both are pure noise."""
    alpha_t, alpha_s, vocabulary = level(schedule, t, xt), level(schedule, s, xt), p.shape[-1]
    a = jnp.where(alpha_t < alpha_s, jnp.minimum(alpha_t / alpha_s, 1), 1)
    from_0, from_s = (keep * jax.nn.one_hot(xt, vocabulary) + (1 - keep) / vocabulary for keep in (alpha_t, a))
    ratio = jnp.where(from_0 > 0, p / from_0, 0)
    return from_s * (alpha_s * ratio + (1 - alpha_s) / vocabulary * jnp.sum(ratio, axis=-1, keepdims=True))


def likelihood(schedule: Schedule, vocabulary: int):
    """(x_t [B, *S], t) -> q(x_t | x_0 = v) [B, *S, V]."""
    return lambda xt, t: (a := level(schedule, t, xt)) * jax.nn.one_hot(xt, vocabulary) + (1 - a) / vocabulary


def bound(
    schedule: Schedule, vocabulary: int, x0: Tokens, xt: Tokens, logits: Float[Array, "B *S V"], t: Time, s: Time
) -> Float[Array, "B *S"]:
    """KL(q(x_s | x_t, x_0) | p(x_s | x_t)) in nats; at s = 0, -log p(x_0 | x_t) (Austin et al. 2021, eq. 1)."""
    laws = jax.nn.one_hot(x0, vocabulary), jax.nn.softmax(logits)
    q, p = (posterior(schedule, xt, law, t=t, s=s) for law in laws)
    return jnp.sum(jax.scipy.special.rel_entr(q, p), axis=-1)

"""Worlds of tokens with exact denoisers: Markov chains of L tokens out of V; independent ones do not look back.

Noise acts on each token apart, so with l_i(v) = q(x_t[i] | x_0[i] = v), from the process's module (masked.likelihood,
uniform.likelihood), the posterior is a hidden Markov model's: two passes along transitions T (Rabiner 1989, eq. 27),

    p(x_0[i] = v | x_t)  ~  a_i(v) l_i(v) b_i(v),        a_{i+1} = (a_i l_i) T_i,        b_{i-1} = T_{i-1} (l_i b_i)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Array, Float, Integer

from diffjax.diffusion.masked import NEVER
from diffjax.diffusion.types import Denoise


class TokenWorld(NamedTuple):
    """A law of sequences: exact draws, probabilities and entropy, and for every noise the exact denoiser."""

    draw: Callable  # (key, n) -> x0 [n, L]
    denoise: Callable[[Callable], Denoise]  # likelihood -> Denoise: log p(x_0[i] = v | x_t) [B, L, V]
    log_prob: Callable  # x0 [B, L] -> [B]; of `sequences` for the whole law
    entropy: Array  # nats, of one sequence


def chain(initial: Float[Array, "V"], transition: Float[Array, "V V"], length: int) -> TokenWorld:
    """x[0] ~ initial, x[i + 1] ~ transition[x[i]]."""
    return _world(_normal(initial), _normal(jnp.broadcast_to(transition, (length - 1, *transition.shape))))


def independent(laws: Float[Array, "L V"]) -> TokenWorld:
    """x[i] ~ laws[i]."""
    return _world(_normal(laws[0]), _normal(jnp.repeat(laws[1:, None], laws.shape[1], axis=1)))


TOKEN_WORLDS = {"chain": chain, "independent": independent}


def sequences(vocabulary: int, length: int) -> Integer[Array, "N L"]:
    """All V^L of them, in order."""
    return jnp.indices((vocabulary,) * length).reshape(length, -1).T


def _world(first, then):
    def draw(key, n):
        keys = jax.random.split(key, len(then) + 1)
        start = jax.random.categorical(keys[0], jnp.log(first), shape=(n,))
        return _along(lambda x, by: jax.random.categorical(by[0], jnp.log(by[1])[x]), start, (keys[1:], then)).T

    def denoise(likelihood):
        def exact(xt, t, cond=None):
            seen = jnp.moveaxis(likelihood(xt, t), 1, 0)  # [L, B, V]
            tell = lambda told, step: _normal((told * step[0]) @ step[1])  # noqa: E731
            a = _along(tell, jnp.broadcast_to(first, seen.shape[1:]), (seen[:-1], then))
            b = _along(tell, jnp.ones_like(seen[0]), (seen[1:], then.swapaxes(1, 2)), reverse=True)
            return jnp.moveaxis(jnp.maximum(jnp.log(_normal(a * seen * b)), NEVER), 0, 1)

        return exact

    def log_prob(x0):
        steps = jnp.log(then)[jnp.arange(len(then))[None], x0[:, :-1], x0[:, 1:]]
        return jnp.log(first)[x0[:, 0]] + jnp.sum(steps, axis=1)

    laws = _along(jnp.matmul, first, then)
    return TokenWorld(draw, denoise, log_prob, jnp.sum(entr(first)) + jnp.sum(laws[:-1] * entr(then).sum(axis=-1)))


def _normal(p):
    return p / jnp.maximum(p.sum(axis=-1, keepdims=True), jnp.finfo(p.dtype).tiny)


def _along(rule, start, steps, reverse=False):
    """[start, rule(start, first of steps), ...], or from the last of steps back to the first."""
    after = jax.lax.scan(lambda x, step: (rule(x, step),) * 2, start, steps, reverse=reverse)[1]
    return jnp.concatenate([after, start[None]] if reverse else [start[None], after])

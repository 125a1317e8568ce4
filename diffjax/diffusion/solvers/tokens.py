"""Solvers for masked tokens that choose which ones to reveal, and grids that go from block to block.

`ancestral` reveals tokens by chance; `confidence`, those that the denoiser is surest of, as many as the schedule wants
visible (MaskGIT: Chang et al. 2022, section 3.2; LLaDA: Nie et al. 2025, section 2.4).  One token a step, an exact
denoiser gives the exact law in any order that does not look at what is drawn.  `chosen`, the measure of those papers,
looks, and favours frequent tokens even then; `likeliest` and `margin` do not look.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from ..masked import draw
from ..types import Plan, Process, Solver, rows

LogP = Float[Array, "B *S V"]
Tokens = Integer[Array, "B *S"]
Score = Float[Array, "B *S"]


def chosen(log_p: LogP, tokens: Tokens) -> Score:
    """log p of the token drawn (Chang et al. 2022)."""
    return jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]


def likeliest(log_p: LogP, tokens: Tokens) -> Score:
    """log p of the likeliest token, whichever is drawn."""
    return jnp.max(log_p, axis=-1)


def margin(log_p: LogP, tokens: Tokens) -> Score:
    """How much likelier the likeliest token is than the next, in nats (Kim et al. 2025, section 4)."""
    return -jnp.diff(jax.lax.top_k(log_p, 2)[0])[..., 0]


def confidence(
    process: Process, temperature: ArrayLike = 0.0, hold: ArrayLike = jnp.inf, measure: Callable = chosen
) -> Solver:
    """Draw every masked token; of the N that move to time s, leave the round(N alpha_s) surest visible.

    Gumbel noise of scale temperature s blurs the measure.  hold is what a token gains once revealed: inf, and it stays;
    0, and it is masked again when others are surer than it was.  Given tokens stay.  Raises ValueError without masks.
    """
    with jax.ensure_compile_time_eval():
        noise = process.prior(jax.random.key(0), jnp.zeros((1, 64), int), jnp.ones(()))
        mask = int(noise[0, 0])
        if (noise != mask).any():
            raise ValueError("confidence reveals masks and this process has none; sample it with `ancestral`")

    def plan(ts):
        t, s = ts[:-1], ts[1:]
        return Plan(t > s, t, s, (t, s, process.schedule(s)[0]))

    def both(key, log_p):
        one, two = jax.random.split(key)
        tokens = jax.random.categorical(one, log_p, mode="high")
        return tokens, jax.random.gumbel(two, tokens.shape, log_p.dtype)

    def step(noise, denoise, x, times, sure):  # sure: the measure of each token when it was revealed
        t, s, alpha = times
        moves, s, alpha = (jnp.broadcast_to(rows(a, x), x.shape) for a in (t > s, s, alpha))
        hidden, log_p = x == mask, jax.nn.log_softmax(denoise(x, t).astype(float))
        drawn, gumbel = draw(both, noise, log_p)
        sure = jnp.where(hidden, measure(log_p, drawn), sure)
        score = jnp.where(moves, sure + jnp.where(hidden, temperature * s * gumbel, hold), -jnp.inf).reshape(len(x), -1)
        wanted = jnp.round(jnp.sum(jnp.where(moves, alpha, 0).reshape(len(x), -1), axis=1, keepdims=True))
        seen = (jnp.argsort(jnp.argsort(-score, axis=1), axis=1) < wanted) | jnp.isposinf(score)
        tokens = jnp.where(hidden, drawn, x).astype(x.dtype)
        return jnp.where(moves, jnp.where(seen.reshape(x.shape), tokens, mask), x), sure

    return Solver(plan, lambda x: jnp.where(x == mask, 0.0, jnp.inf), step)


TOKEN_SOLVERS = {"confidence": confidence}


def blocks(ts: Float[Array, "points"], length: int, block: int) -> Float[Array, "more 1 length"]:
    """A grid of each element's own: blocks walk along ts one after another, while later ones wait at ts[0].

    Any solver and process can walk it (semi-autoregressive; Arriola et al. 2025).  Raises ValueError if block < 1.
    """
    if block < 1:
        raise ValueError(f"a block has at least 1 element; got {block}")
    steps, which = len(ts) - 1, jnp.arange(length) // block
    calls = jnp.arange(steps * -(-length // block) + 1)
    return ts[jnp.clip(calls[:, None, None] - steps * which[None, None], 0, steps)]

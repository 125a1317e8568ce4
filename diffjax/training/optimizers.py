"""Optimizers: an optax chain of clipping, the rule itself, and a learning rate with warm-up.

learning rate at step k:   peak * min(1, (k + 1) / warmup) * decay(k)    decay: constant, cosine, inverse_sqrt
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def constant(steps: int) -> optax.Schedule:
    """No decay."""
    return lambda k: jnp.ones_like(k, jnp.float32)


def cosine(steps: int) -> optax.Schedule:
    """Half a cosine from 1 to 0 over the whole run (Loshchilov & Hutter 2017)."""
    return lambda k: 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(k / steps, 1.0)))


def inverse_sqrt(steps: int, *, after: int = 70_000) -> optax.Schedule:
    """1 for `after` steps, then the root of after / k, however long the run (Karras et al. 2024, eq. 67)."""
    if after < 1:
        raise ValueError(f"after must be at least 1 step; got {after}")
    return lambda k: 1 / jnp.sqrt(jnp.maximum(k / after, 1.0))


DECAYS = {"constant": constant, "cosine": cosine, "inverse_sqrt": inverse_sqrt}


def warmed(peak: float, *, warmup: int, decay: optax.Schedule) -> optax.Schedule:
    """A learning rate that rises linearly over `warmup` steps and then follows `decay`."""
    return lambda k: peak * jnp.minimum(1.0, (k + 1) / max(warmup, 1)) * decay(k)


def adam(
    rate: optax.Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015)."""
    return optax.adam(rate, b1=b1, b2=b2, eps=eps)


def adamw(
    rate: optax.Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, weight_decay: float = 1e-2
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) on kernels only, not on biases, gains and tables."""
    return optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decayed)


OPTIMIZERS = {"adam": adam, "adamw": adamw}


def decayed(params: Any) -> Any:
    """Which leaves weight decay acts on: those named 'kernel'."""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel", params)


def clipped(optimizer: optax.GradientTransformation, *, norm: float) -> optax.GradientTransformation:
    """Scale gradients down to a global norm of at most `norm` first; 0 does not clip."""
    return optax.chain(optax.clip_by_global_norm(norm), optimizer) if norm else optimizer

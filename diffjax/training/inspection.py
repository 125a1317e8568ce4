"""One training step under the magnifying glass: what every row lost, and what every layer held and was told."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .fingerprints import named
from .step import State

COLUMNS = "size", "param_rms", "grad_rms", "grad_max", "update_rms", "not_finite"


def make_inspect(draw: Callable, loss: Callable, optimizer: optax.GradientTransformation) -> Callable:
    """(State, batch) -> {"rows": {"loss": [B], ...}, "layers": {leaf: {column: number}}}: what that step would do.

    `draw` and `loss` are those of `make_step`.  Of the rows everything that `draw` adds to the batch and that is a
    number is shown, as the noise level t.
    """

    def inspect(state: State, batch: dict[str, jax.Array]) -> dict[str, Any]:
        rows = draw(jax.random.fold_in(state.key, state.step), batch)

        def total(params):
            each = loss(params, rows)
            return jnp.mean(each), each

        grads, each = jax.grad(total, has_aux=True)(state.params)
        updates, _ = optimizer.update(grads, state.opt, state.params)
        drawn = {k: v for k, v in rows.items() if k not in batch and jnp.issubdtype(v.dtype, jnp.number)}
        trees = (named(tree) for tree in (state.params, grads, updates))
        layers = {name: _layer(p, g, u) for (name, p), g, u in zip(*(_parts(trees)), strict=True)}
        return {"rows": {"loss": each} | drawn, "layers": layers}

    return inspect


def _parts(trees):
    params, grads, updates = trees
    return params.items(), grads.values(), updates.values()


def _layer(param: jax.Array, grad: jax.Array, update: jax.Array) -> dict[str, Any]:
    rms = lambda x: jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32))))  # noqa: E731
    values = param.size, rms(param), rms(grad), jnp.max(jnp.abs(grad)), rms(update), jnp.sum(~jnp.isfinite(grad))
    return dict(zip(COLUMNS, values, strict=True))

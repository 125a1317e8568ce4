"""The training step: loss, gradient, optimizer, average; one compiled program whose state is donated to its successor.

The state after k steps is a function of (config, seed, k): randomness is fold_in(key, step) of a constant key, and the
batch is a function of (seed, step).  A run that was killed and resumed is therefore the run that was not, to the bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from . import ema
from .sharding import batch_sharding, replicated, state_sharding


class State(NamedTuple):
    """Everything that a step changes, and the key that it does not.  Arrays only."""

    step: jax.Array  # []
    params: Any
    ema: Any
    opt: Any
    key: jax.Array


def initial(init: Callable, optimizer: optax.GradientTransformation, key: jax.Array) -> State:
    """The state before the first step."""
    init_key, run_key = jax.random.split(key)
    params = init(init_key)
    average = jax.tree.map(jnp.copy, params)  # a copy: donated buffers may not be shared
    return State(jnp.zeros((), jnp.int32), params, average, optimizer.init(params), run_key)


def make_step(loss: Callable, optimizer: optax.GradientTransformation, *, decay: float) -> Callable:
    """(State, batch) -> (State, metrics).  loss(key, params, batch) -> [B]; metrics are scalars: loss, grad_norm."""

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        value, grads = jax.value_and_grad(lambda params: jnp.mean(loss(key, params, batch)))(state.params)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        average = ema.update(state.ema, params, state.step, decay=decay)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return State(state.step + 1, params, average, opt, state.key), metrics

    return step


def compile_step(step: Callable, init: Callable, mesh: Mesh) -> tuple[Callable, Callable, State]:
    """(jitted init, jitted step, abstract state) over a mesh.

    `init(key) -> State` is compiled too: the state is born sharded.  The abstract state, leaves jax.ShapeDtypeStruct
    with their shardings, is what a checkpoint is restored onto.
    """
    abstract = jax.eval_shape(init, jax.random.key(0))
    shardings = state_sharding(mesh, abstract)
    target = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings)
    rows, scalars = batch_sharding(mesh), replicated(mesh)
    jitted = jax.jit(step, in_shardings=(shardings, rows), out_shardings=(shardings, scalars), donate_argnums=0)
    return jax.jit(init, out_shardings=shardings), jitted, target

"""The training step: loss, gradient, optimizer, averages; one compiled program whose state is donated to its successor.

The state after k steps is a function of (config, seed, k): randomness is fold_in(key, step) of a constant key, and the
batch is a function of (seed, step).  A run that was killed and resumed is therefore the run that was not, to the bit.
What is random belongs to rows: a batch that is worked on in parts, one after another, gives the gradient of the whole.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from .ema import Average
from .sharding import ROWS, Overrides, batch_sharding, replicated, state_sharding


class State(NamedTuple):
    """Everything that a step changes, and the key that it does not.  Arrays only."""

    step: jax.Array  # []
    params: Any
    ema: Any
    opt: Any
    key: jax.Array


class Place(NamedTuple):
    """Where what is made on the way lives; by itself, wherever the compiler likes."""

    grads: Callable = lambda grads: grads  # a tree like params
    parts: Callable = lambda rows: rows  # [parts, B / parts, ...]


def initial(init: Callable, optimizer: optax.GradientTransformation, average: Average, key: jax.Array) -> State:
    """The state before the first step."""
    init_key, run_key = jax.random.split(key)
    params = init(init_key)
    return State(jnp.zeros((), jnp.int32), params, average.init(params), optimizer.init(params), run_key)


def make_step(
    draw: Callable, loss: Callable, optimizer: optax.GradientTransformation, average: Average, *, parts: int = 1
) -> Callable:
    """(State, batch) -> (State, metrics), the gradient summed over so many parts of the batch, one after another.

    draw: (key, batch) -> rows, the batch and whatever is random, each [B, ...]; loss: (params, rows) -> [B].  Metrics
    are scalars: loss, grad_norm.
    """

    def step(state: State, batch: dict[str, jax.Array], place: Place = Place()) -> tuple[State, dict]:  # noqa: B008
        rows = draw(jax.random.fold_in(state.key, state.step), batch)
        value, grads = _gradient(lambda params, rows: jnp.mean(loss(params, rows)), state.params, rows, parts, place)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return State(state.step + 1, params, average.update(state.ema, params, state.step), opt, state.key), metrics

    return step


def _gradient(loss: Callable, params: Any, rows: Any, parts: int, place: Place) -> tuple[jax.Array, Any]:
    """(loss, its gradient); every part holds rows of every device, so that none of them moves."""
    if parts == 1:
        value, grads = jax.value_and_grad(loss)(params, rows)
        return value, place.grads(grads)

    def add(total, some):
        value, grads = jax.value_and_grad(loss)(params, some)
        return jax.tree.map(lambda a, b: a + b / parts, total, (value, place.grads(grads))), None

    split = jax.tree.map(lambda a: place.parts(a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1)), rows)
    nothing = jnp.zeros(()), place.grads(jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(add, nothing, split)[0]


def compile_step(
    step: Callable, init: Callable, mesh: Mesh, *, overrides: Overrides = ()
) -> tuple[Callable, Callable, State]:
    """(jitted init, jitted step, abstract state) over a mesh.

    `init(key) -> State` is compiled too: the state is born sharded, so it may be larger than one device's memory.  The
    abstract state, leaves jax.ShapeDtypeStruct with their shardings, is what a checkpoint is restored onto.
    """
    abstract = jax.eval_shape(init, jax.random.key(0))
    shardings = state_sharding(mesh, abstract, overrides)
    target = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings)
    rows, scalars = batch_sharding(mesh), replicated(mesh)
    place = Place(
        partial(jax.lax.with_sharding_constraint, shardings=shardings.params),
        partial(jax.lax.with_sharding_constraint, shardings=NamedSharding(mesh, P(None, *ROWS))),
    )

    def training_step(state, batch):
        return step(state, batch, place)

    jitted = jax.jit(
        training_step, in_shardings=(shardings, rows), out_shardings=(shardings, scalars), donate_argnums=0
    )
    return jax.jit(init, out_shardings=shardings), jitted, target

"""The training step: loss, gradient, optimizer, averages; one compiled program whose state is donated to its successor.

The state after k steps is a function of (config, seed, k): randomness is fold_in(key, step) of a constant key, and the
batch is a function of (seed, step).  A run that was killed and resumed is therefore the run that was not, to the bit.
What is random belongs to rows: a batch that is worked on in parts, one after another, gives the gradient of the whole.
A call of the program takes as many steps as it is given batches: where a step is small, most of its time is the call's.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from diffjax.diffusion.types import unconstrained

from .ema import Average
from .sharding import Overrides, on_host, replicated, stacked_sharding, state_sharding

LEVELS = 8  # equal parts of [0, 1] in which losses are looked at


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
    near: Callable = lambda opt: opt  # the optimizer's state, for its update
    far: Callable = lambda opt: opt  # and between updates


def initial(init: Callable, optimizer: optax.GradientTransformation, average: Average, key: jax.Array) -> State:
    """The state before the first step."""
    init_key, run_key = jax.random.split(key)
    params = init(init_key)
    return State(jnp.zeros((), jnp.int32), params, average.init(params), optimizer.init(params), run_key)


def make_step(
    draw: Callable, loss: Callable, optimizer: optax.GradientTransformation, average: Average, *, parts: int = 1,
    project: Callable = unconstrained,
) -> Callable:  # fmt: skip
    """(State, batch) -> (State, metrics), the gradient summed over so many parts of the batch, one after another.

    draw: (key, batch) -> rows, the batch and whatever is random, each [B, ...], the times t [B] among them; loss:
    (params, rows) -> [B]; project: params -> params, after every update (types.Net).  Metrics: loss and grad_norm,
    scalars, and by_level [2, LEVELS].
    """

    def objective(params, rows):
        losses = loss(params, rows)
        return jnp.mean(losses), by_level(rows["t"], losses)

    def step(state: State, batch: dict[str, jax.Array], place: Place = Place()) -> tuple[State, dict]:  # noqa: B008
        rows = draw(jax.random.fold_in(state.key, state.step), batch)
        (value, parted), grads = _gradient(objective, state.params, rows, parts, place)
        updates, opt = optimizer.update(grads, place.near(state.opt), state.params)
        params = project(optax.apply_updates(state.params, updates))
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads), "by_level": parted}
        return State(
            state.step + 1, params, average.update(state.ema, params, state.step), place.far(opt), state.key
        ), metrics

    return step


def by_level(t: Float[Array, "B"], losses: Float[Array, "B"]) -> Float[Array, "2 levels"]:
    """Sums of the losses in equal parts of [0, 1], and how many rows fell there."""
    there = jnp.clip(jnp.floor(t * LEVELS), 0, LEVELS - 1)[:, None] == jnp.arange(LEVELS)[None, :]
    return jnp.stack([jnp.sum(jnp.where(there, a, 0), axis=0) for a in (losses[:, None], jnp.ones((len(t), 1)))])


def _gradient(objective: Callable, params: Any, rows: Any, parts: int, place: Place) -> tuple[Any, Any]:
    """((mean loss, sums by level), gradient); every part holds rows of every device, so that none of them moves."""
    gradient = jax.value_and_grad(objective, has_aux=True)
    if parts == 1:
        values, grads = gradient(params, rows)
        return values, place.grads(grads)

    def add(total, some):
        (value, parted), grads = gradient(params, some)
        (mean, sums), mean_grads = total
        mean, mean_grads = jax.tree.map(lambda a, b: a + b / parts, (mean, mean_grads), (value, place.grads(grads)))
        return ((mean, sums + parted), mean_grads), None

    split = jax.tree.map(lambda a: place.parts(a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1)), rows)
    nothing = (jnp.zeros(()), jnp.zeros((2, LEVELS))), place.grads(jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(add, nothing, split)[0]


def compile_step(
    step: Callable, init: Callable, mesh: Mesh, *, overrides: Overrides = (), offload: bool = False
) -> tuple[Callable, Callable, State]:
    """(jitted init, jitted steps, abstract state) over a mesh.

    steps: (State, batches [n, B, ...]) -> (State, metrics [n, ...]), one step for each batch, one after another.

    `init(key) -> State` is compiled too: the state is born sharded, so it may be larger than one device's memory.  The
    abstract state, leaves jax.ShapeDtypeStruct with their shardings, is what a checkpoint is restored onto.  With
    `offload` the optimizer's state waits in the host's memory from one update to the next (Ren et al. 2021).
    """
    abstract = jax.eval_shape(init, jax.random.key(0))
    shardings = state_sharding(mesh, abstract, overrides)
    near = shardings.opt
    if offload:
        shardings = shardings._replace(opt=on_host(shardings.opt, abstract.opt))
    target = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings)
    batches, scalars = stacked_sharding(mesh), replicated(mesh)
    place = Place(
        partial(jax.lax.with_sharding_constraint, shardings=shardings.params),
        partial(jax.lax.with_sharding_constraint, shardings=batches),
        *(partial(jax.device_put, device=place) for place in ((near, shardings.opt) if offload else ())),
    )

    def training_steps(state, batches):
        if len(jax.tree.leaves(batches)[0]) == 1:  # no loop: in one, gradients of lax's convolutions are slow on a CPU
            state, metrics = step(state, jax.tree.map(lambda rows: rows[0], batches), place)
            return state, jax.tree.map(lambda value: value[None], metrics)
        return jax.lax.scan(lambda state, batch: step(state, batch, place), state, batches)

    jitted = jax.jit(
        training_steps, in_shardings=(shardings, batches), out_shardings=(shardings, scalars), donate_argnums=0
    )
    return compile_once(init, out_shardings=shardings), jitted, target


def compile_once(function: Callable, **options: Any) -> Callable:
    """jax.jit of what runs once: parameters' random numbers compile in a third of the time on a CPU, bit for bit."""
    less = "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ  # is asked for already
    quick = jax.default_backend() == "cpu" and not less
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1} if quick else {}, **options)

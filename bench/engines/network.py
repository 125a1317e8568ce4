"""A network of JAX as a case, whoever wrote it: its forward pass, or a training step with Adam and a donated state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.engines.serve import Case
from diffjax.training.cost import flops, memory


def network_case(apply, params, inputs, *, step: bool) -> Case:
    """apply(params, x, *told) -> an array like x; `inputs` are x and what it is told."""
    facts: dict[str, float] = {"parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}
    facts["gflops"] = flops(jax.make_jaxpr(apply)(params, *inputs).jaxpr) / 1e9  # of a forward pass of the batch
    if not step:
        forward = jax.jit(apply)
        return Case(lambda: forward(params, *inputs).block_until_ready(), facts)

    optimizer = optax.adam(1e-4)
    target = jnp.asarray(np.random.default_rng(1).standard_normal(inputs[0].shape), jnp.float32)

    @partial(jax.jit, donate_argnums=0)
    def train(state, inputs, target):
        params, opt = state
        loss = lambda params: jnp.mean((apply(params, *inputs) - target) ** 2)  # noqa: E731
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = optimizer.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt), value

    held = [(params, jax.jit(optimizer.init)(params))]
    compiled = train.lower(held[0], inputs, target).compile()
    facts["temporaries"] = memory(compiled)["temporary"] / 2**20

    def run():
        held[0], value = compiled(held[0], inputs, target)
        return jax.block_until_ready((held, value))

    return Case(run, facts)


def noise(*shape: int, seed: int = 0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def levels(batch: int):
    return jnp.asarray(np.random.default_rng(2).random(batch), jnp.float32)

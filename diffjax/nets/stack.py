"""Equal blocks, one after another, as one block whose parameters are stacked: leading axis, the depth.

    h_{i+1} = block(params_i, h_i, *told)        one lax.scan

A program is then as long as one block's at any depth.  The stack is never indexed: the gradient of each slice would be
as large as the whole.
"""

from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array

from .blocks import REMAT


def stacked(make: Callable[[nnx.Rngs], nnx.Module], depth: int, *, rngs: nnx.Rngs) -> nnx.Module:
    """The module that make(rngs) constructs, `depth` times, with every parameter of shape [depth, ...]."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    keys = jax.random.split(rngs.params(), depth)
    return nnx.merge(graph, jax.vmap(lambda key: nnx.state(make(nnx.Rngs(params=key))))(keys))


def run(blocks: nnx.Module, policy: str, h: Array, *told) -> Array:
    """h through all blocks; of each, what `policy` says is kept for the backward pass (a row of REMAT)."""
    graph, params = nnx.split(blocks)

    def block(params, h, *told):
        return nnx.merge(graph, params)(h, *told)

    if policy != "none":  # the loop itself keeps the two computations apart
        block = jax.checkpoint(block, policy=REMAT[policy], prevent_cse=False)
    return jax.lax.scan(lambda h, params: (block(params, h, *told), None), h, params)[0]

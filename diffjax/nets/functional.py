"""The cage: a Flax NNX module becomes two pure functions on a plain nested dict of arrays.

Modules are convenient to write; everything outside this room sees only `Net(init, apply)`.  A network from elsewhere
(Linen, Equinox, by hand) needs no adapter: it is two lambdas.  `nnx.merge` pairs leaves by position and checks neither
names nor shapes, so `apply` compares the whole tree first, while tracing, at no cost to the compiled program.

A layer whose parameter is held to a constraint says so where it makes it, nnx.Param(value, project=function), and
`Net.project` applies these functions to the whole tree.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from diffjax.diffusion.types import Net

from .capture import watched


def functional(module: Callable[[nnx.Rngs], nnx.Module]) -> Net:
    """`Net(init, apply)` of a module constructor.

    The module's __call__ takes (x [B, *S], level [B], cond=None, *, key=None), or x alone if it is no diffusion
    model's.  All its state must be nnx.Param.
    Raises ValueError, from the constructor at once and from apply when params do not fit the module.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: module(nnx.Rngs(0))))
    expected = nnx.to_pure_dict(state)
    constraints = [variable.get_metadata().get("project") for _, variable in nnx.to_flat_state(state)]

    def init(key):
        return nnx.to_pure_dict(nnx.state(module(nnx.Rngs(params=key)), nnx.Param))

    def apply(params, x, *told, **more):
        require_same(expected, params)
        return watched(nnx.merge(graph, params))(x, *told, **more)

    def project(params):
        require_same(expected, params)
        leaves, tree = jax.tree.flatten(params)
        held = [f(leaf) if f else leaf for f, leaf in zip(constraints, leaves, strict=True)]
        return jax.tree.unflatten(tree, held)

    return Net(init, apply, project)


def require_same(expected: Any, got: Any) -> None:
    """Raise ValueError, naming the first difference, unless two trees agree in names, shapes and dtypes."""
    want, have = _leaves(expected), _leaves(got)
    for name in [*want, *have]:
        if want.get(name) != have.get(name):
            wanted, given = want.get(name, "absent"), have.get(name, "absent")
            raise ValueError(f"params do not fit the network: '{name}' should be {wanted} and is {given}")


def _leaves(tree):
    """'down/0/conv1/kernel' -> 'float32[3, 3, 1, 32]'.  A string key that looks like a number is not that number."""

    def name(entry):
        key = getattr(entry, "key", entry)
        return repr(key) if isinstance(key, str) and key.isdigit() else str(key)

    named = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(map(name, path)): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in named}

"""The cage: parameters that are not exactly the network's are refused, not paired up by position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffjax.diffusion.types import Net
from diffjax.nets.functional import functional


class Chain(nnx.Module):
    """Twelve different affine maps: their order shows."""

    def __init__(self, rngs):
        self.links = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(12)])

    def __call__(self, x, level, cond=None, *, key=None):
        for link in self.links:
            x = jnp.tanh(link(x))
        return x


NET = functional(Chain)
X, LEVEL = jnp.array([[0.3, -0.7]]), jnp.zeros(1)


def edited(**changes):
    """A fresh params dict with entries of link 3 replaced, or dropped where None."""
    params = NET.init(jax.random.key(0))
    params["links"][3] = {k: v for k, v in (params["links"][3] | changes).items() if v is not None}
    return params


def test_links_apply_in_order():
    params, x = NET.init(jax.random.key(0)), np.asarray(X)
    assert list(params["links"]) == list(range(12))
    for i in range(12):
        x = np.tanh(x @ np.asarray(params["links"][i]["kernel"]) + np.asarray(params["links"][i]["bias"]))
    np.testing.assert_allclose(NET.apply(params, X, LEVEL), x, rtol=1e-5)


def strings():
    params = edited()
    return {"links": {str(i): link for i, link in params["links"].items()}}


@pytest.mark.parametrize(
    "params, sentence",
    [(strings(), "links/0/bias' should be .*float32.* and is absent"),
     (edited(kernel=jnp.zeros((2, 3))), r"links/3/kernel' should be float32\[2, 2\] and is float32\[2, 3\]"),
     (edited(kernel=jnp.zeros((2, 2), jnp.bfloat16)), r"links/3/kernel' .* is bfloat16\[2, 2\]"),
     (edited(kernel=None, weight=jnp.zeros((2, 2))), "links/3/kernel' .* is absent"),
     (edited(bias=None), "links/3/bias' .* is absent"),
     (edited(extra=jnp.zeros(2)), "links/3/extra' should be absent")],
    ids=["string keys", "shape", "dtype", "renamed", "missing", "extra"],
)  # fmt: skip
def test_other_params_are_refused_by_name(params, sentence):
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(NET.apply, params, X, LEVEL)


def test_refused_even_where_all_leaves_would_pair_up():
    """The same shapes under other names would merge without a word, in the wrong order."""
    params = edited()
    params["links"] = dict(enumerate(params["links"].values(), start=1))
    with pytest.raises(ValueError, match="links/0/"):
        NET.apply(params, X, LEVEL)


class Held(nnx.Module):
    """Twelve numbers, every third of which is to be at least its own place."""

    def __init__(self, rngs):
        def constraint(i):
            return {} if i % 3 else {"project": lambda value: jnp.maximum(value, i)}

        self.numbers = nnx.List([nnx.Param(jnp.zeros(1), **constraint(i)) for i in range(12)])

    def __call__(self, x, level, cond=None, *, key=None):
        return x


def test_project_is_what_the_parameters_were_made_with():
    net = functional(Held)
    numbers = jax.jit(net.project)({"numbers": {i: jnp.ones(1) for i in range(12)}})["numbers"]
    assert [float(numbers[i][0]) for i in range(12)] == [1, 1, 1, 3, 1, 1, 6, 1, 1, 9, 1, 1]
    with pytest.raises(ValueError, match="numbers/3' .* is absent"):
        net.project({"numbers": {i: jnp.ones(1) for i in range(12) if i != 3}})


def test_without_constraints_project_changes_nothing():
    params = edited()
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (NET.project(params), params)), strict=True))
    assert Net(NET.init, NET.apply).project(params) is params


def test_init_compiles_and_matches_its_abstract_self():
    key = jax.random.key(0)
    eager, compiled, abstract = NET.init(key), jax.jit(NET.init)(key), jax.eval_shape(NET.init, key)
    assert jax.tree.structure(eager) == jax.tree.structure(compiled) == jax.tree.structure(abstract)
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_errors_of_the_constructor_come_at_once():
    def broken(rngs):
        raise ValueError("no such width")

    with pytest.raises(ValueError, match="no such width"):
        functional(broken)

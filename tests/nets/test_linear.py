"""Linear layers as products of two matrices, beside flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from diffjax.nets.linear import Linear, product
from diffjax.nets.transformer import at_each_token
from diffjax.training.cost import equations

CASES = {"a row": ((5, 3), 4), "tokens": ((2, 1, 5, 3), 4), "several outputs": ((2, 1, 5, 3), (3, 4))}


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "none"])
@pytest.mark.parametrize("case", CASES)
def test_it_is_flaxs_layer_with_its_derivatives(case, biased, devices, x64):
    shape, outputs = CASES[case]
    options = dict(use_bias=biased, bias_init=nnx.initializers.normal(), param_dtype=jnp.float64)
    x = jax.random.normal(jax.random.key(1), shape)

    def everything(kind):
        graph, params = nnx.split(kind(3, outputs, rngs=nnx.Rngs(0), **options))
        answer = lambda params, x: nnx.merge(graph, params)(x)  # noqa: E731
        total = lambda *args: jnp.sum(jnp.sin(answer(*args)))  # noqa: E731
        moved = jax.tree.map(lambda a: 2 * a + 1, (params, x))
        slope = jax.grad(total, argnums=(0, 1))(params, x)
        return jax.tree.leaves([params, answer(params, x), slope, jax.jvp(answer, (params, x), moved)])

    for ours, theirs in zip(everything(Linear), everything(nnx.LinearGeneral), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_all_three_products_are_of_two_matrices(case, devices):
    """But where a mesh may have split the last of several axes: then they stay as they are."""
    shape, outputs = CASES[case]
    x, outputs = jnp.ones(shape), outputs if isinstance(outputs, tuple) else (outputs,)
    kernel, bias = jnp.ones((3, *outputs)), jnp.ones(outputs)
    slope = jax.grad(lambda *args: jnp.sum(jnp.sin(product(*args))), argnums=(0, 1))
    found = [e for e, _ in equations(jax.make_jaxpr(slope)(x, kernel, bias).jaxpr) if e.primitive is lax.dot_general_p]
    ranks = {variable.aval.ndim for equation in found for variable in (*equation.invars, *equation.outvars)}
    assert len(found) == 3 and ranks == ({2} if devices == 1 or len(outputs) == 1 else {2, 3})


@pytest.mark.parametrize("given", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_types_and_first_weights_are_flaxs(dtype, given):
    def found(kind):
        graph, params = nnx.split(kind(3, 4, dtype=dtype, rngs=nnx.Rngs(0)))
        answer = lambda params, x: nnx.merge(graph, params)(x)  # noqa: E731
        x = jnp.ones((2, 5, 3), given)
        slope = jax.grad(lambda *args: jnp.sum(answer(*args).astype(jnp.float32)), argnums=(0, 1))(params, x)
        return params, answer(params, x), slope

    ours, theirs = jax.tree.leaves(found(Linear)), jax.tree.leaves(found(nnx.Linear))
    assert [a.dtype for a in ours] == [a.dtype for a in theirs]
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, two)


def test_nothing_times_nothing_is_zero():
    assert (
        not product(jnp.ones((2, 0)), jnp.ones((0, 4))).any()
        and product(jnp.ones((0, 5, 3)), jnp.ones((3, 4))).size == 0
    )


def test_what_is_at_each_token_is_summed_over_all_axes_at_once():
    """Over the middle axis alone XLA's CPU compiler takes eight times as long."""
    row, like = jnp.arange(6.0).reshape(2, 3), jnp.ones((2, 1, 5, 3))
    np.testing.assert_array_equal(at_each_token(row, like), np.broadcast_to(row[:, None, None], like.shape))
    slope = jax.make_jaxpr(jax.grad(lambda row: jnp.sum(at_each_token(row, like) * like)))(row)
    (summed,) = [e for e, _ in equations(slope.jaxpr) if e.primitive is lax.reduce_sum_p and e.outvars[0].aval.ndim]
    assert summed.params["axes"] == (1, 2)

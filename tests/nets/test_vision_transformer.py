"""Encoders of pictures: their counts, their positions, and what the class token reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import ENCODERS, functional
from diffjax.nets.vision_transformer import INTERPOLATIONS, antialiased, bicubic
from tests.nets.conftest import random_params

SMALL = dict(width=16, depth=2, heads=2, patch=2, grid=3)


def net_of(**options):
    return functional(lambda rngs: ENCODERS["vision_transformer"](rngs=rngs, **SMALL | options))


@pytest.mark.parametrize("width, depth, millions", [(384, 12, 21), (768, 12, 86), (1024, 24, 300)])
def test_parameters_are_those_of_dinov2(width, depth, millions):
    """Counted by hand, and near the round numbers of its table."""
    net = functional(
        lambda rngs: ENCODERS["vision_transformer"](rngs=rngs, width=width, depth=depth, heads=width // 64)
    )
    found = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0))))
    block = 12 * width**2 + 9 * width + 4 * width + 2 * width  # products, their biases, two norms, two gains
    assert found == depth * block + (588 + 1 + 1 + 1370 + 2) * width
    assert abs(found / 1e6 - millions) < 0.06 * millions


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("count, wanted", [(5, 5), (5, 9), (37, 16), (4, 3)])
def test_interpolation_keeps_constants_and_points_that_are_there(name, count, wanted):
    matrix = INTERPOLATIONS[name](count, wanted)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    if count == wanted:
        np.testing.assert_allclose(matrix, np.eye(count), atol=1e-6)


def test_interpolation_is_that_of_others():
    table = np.random.default_rng(0).standard_normal((37, 3)).astype(np.float32)
    theirs = jax.image.resize(table, (16, 3), "cubic", antialias=True)
    np.testing.assert_allclose(antialiased(37, 16) @ table, theirs, atol=2e-5)
    np.testing.assert_allclose(bicubic(9, 27)[1::3], np.eye(9), atol=1e-6)
    # Half way between two points Keys' kernel is a / 8 of the outer and 1/2 - a / 8 of the inner ones: a = -3/4.
    np.testing.assert_allclose(bicubic(8, 4)[1], [0, -3 / 32, 19 / 32, 19 / 32, -3 / 32, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(bicubic(8, 4)[0], [16 / 32, 19 / 32, -3 / 32, 0, 0, 0, 0, 0], atol=1e-6)


def test_without_positions_patches_are_a_set_and_with_them_they_are_not():
    net = net_of(registers=2, project=5, pre_norm=True, layer_scale=False)
    params, draw = random_params(net), np.random.default_rng(1)
    x = jnp.asarray(draw.standard_normal((2, 6, 6, 3)), jnp.float32)
    mixed = x.reshape(2, 3, 2, 6, 3)[:, [2, 0, 1]].reshape(x.shape)  # rows of patches
    apply = jax.jit(net.apply)
    there, other = apply(params, x), apply(params, mixed)
    assert there.shape == (2, 5) and jnp.abs(there - other).max() > 1e-3
    params["tokens"]["positions"] = jnp.zeros_like(params["tokens"]["positions"])
    np.testing.assert_allclose(apply(params, x), apply(params, mixed), atol=1e-5)


def test_every_parameter_matters_and_rows_are_independent():
    net = net_of(registers=2, project=5, pre_norm=True)
    params, x = random_params(net), jnp.asarray(np.random.default_rng(2).standard_normal((3, 8, 4, 3)), jnp.float32)
    answer = jax.jit(net.apply)
    first = answer(params, x)
    np.testing.assert_array_equal(answer(params, x.at[1:].multiply(2))[0], first[0])
    grads = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, x) ** 3)))(params)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(grad).max() > 1e-6, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    "options, says",
    [(dict(mlp="relu"), "no mlp 'relu'"), (dict(interpolation="area"), "no interpolation 'area'"),
     (dict(heads=3), "heads divide the width; got 16, 2, 3"), (dict(depth=0), "at least 1")],
)  # fmt: skip
def test_what_cannot_be_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        net_of(**options)

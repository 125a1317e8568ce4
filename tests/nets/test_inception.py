"""The FID's Inception: its counts, and what makes it another network than the paper's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import ENCODERS, functional
from diffjax.nets.inception import BLOCKS, average, maximum
from tests.nets.conftest import random_params


@pytest.fixture(scope="module")
def thin():
    return functional(lambda rngs: ENCODERS["inception"](rngs=rngs, thin=16, classes=5))


def test_parameters_are_those_of_the_published_network():
    net = functional(lambda rngs: ENCODERS["inception"](rngs=rngs))
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    statistics = sum(leaf.size for path, leaf in leaves if path[-1].key in ("mean", "var"))
    # torchvision's without its second head has 23,834,568 of 1,000 classes; Keras' says 34,432 of statistics.
    assert statistics == 34_432
    assert sum(leaf.size for _, leaf in leaves) - statistics == 23_834_568 + 8 * 2049
    features, logits = jax.eval_shape(net.apply, shapes, jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32))
    assert features.shape == (1, 2048) and logits.shape == (1, 1008)


def test_averages_are_of_what_is_inside():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 5, 2)), jnp.float32)
    for i, j in ((0, 0), (0, 2), (3, 4), (1, 1)):
        part = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        np.testing.assert_allclose(average(x)[:, i, j], part.mean((1, 2)), rtol=1e-5)
        np.testing.assert_array_equal(maximum(x)[:, i, j], part.max((1, 2)))


def test_the_last_block_alone_takes_maxima():
    inner = {name: block["branch_pool"][0] for name, block in BLOCKS.items() if len(block["branch_pool"]) == 2}
    assert {name for name, pool in inner.items() if pool is maximum} == {"Mixed_7c"}
    assert set(inner) == {"Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"} | {
        "Mixed_7b",
        "Mixed_7c",
    }


@pytest.mark.slow
def test_rows_are_independent_and_sizes_are_free(thin):
    params = jax.tree.map(jnp.abs, random_params(thin))  # variances are positive
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 75, 80, 3)), jnp.float32)
    apply = jax.jit(thin.apply)
    features, logits = apply(params, x)
    assert features.shape == (2, 128) and logits.shape == (2, 5)
    np.testing.assert_array_equal(apply(params, x.at[1].multiply(2))[0][0], features[0])
    assert jnp.abs(features[0] - features[1]).max() > 0


def test_what_cannot_be_is_refused(thin):
    shapes = jax.eval_shape(thin.init, jax.random.key(0))
    with pytest.raises(ValueError, match="at least 75 x 75; got"):
        jax.eval_shape(thin.apply, shapes, jax.ShapeDtypeStruct((1, 74, 80, 3), jnp.float32))
    with pytest.raises(ValueError, match="divisor of 16"):
        functional(lambda rngs: ENCODERS["inception"](rngs=rngs, thin=3))

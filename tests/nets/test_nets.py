"""Laws of every network: shapes, dtypes, and that everything which should matter does, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import NETS
from diffjax.nets.functional import functional

every_net = pytest.mark.parametrize("name", NETS)


@every_net
@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 8, 3), (8, 4, 5)])
@pytest.mark.parametrize("classes, dtype", [(0, "float32"), (10, "bfloat16")])
def test_output_is_float32_and_shaped_like_the_input(name, shape, classes, dtype, small, abstract, batch):
    net = small(name, shape, classes, dtype=dtype)
    x, level, label = batch(shape)
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract(net))} == {np.dtype("float32")}
    out = jax.eval_shape(net.apply, abstract(net), x, level, label)
    assert (out.shape, out.dtype) == (x.shape, np.dtype("float32"))


@every_net
def test_arithmetic_follows_dtype(name, jit, small, randomised, compiled, batch):
    """In bfloat16 the answer is that of float32 to two digits, and not the same."""
    net = small(name, dtype="bfloat16")
    exact, rounded = (apply(randomised(net), *batch()) for apply in (compiled(name), jit(net.apply)))
    error = float(jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact))
    assert 1e-4 < error < 5e-2


@every_net
def test_init_is_a_function_of_its_key_and_the_new_network_answers_zero(name, jit, small, compiled, batch):
    init = jit(small(name).init)
    one, same, other = (init(jax.random.key(seed, impl="rbg")) for seed in (0, 0, 1))  # rbg compiles faster
    equal = [jax.tree.leaves(jax.tree.map(np.array_equal, one, tree)) for tree in (same, other)]
    assert all(equal[0]) and equal[1].count(False) >= 5
    assert not jnp.any(compiled(name)(one, *batch()))


@every_net
def test_every_parameter_matters(name, names, grads):
    gradient = grads(name)[0]
    for leaf, grad in zip(names(gradient), jax.tree.leaves(gradient), strict=True):
        grad = np.atleast_1d(grad)
        largest = np.abs(grad).reshape(-1, grad.shape[-1]).max(0)
        if leaf.endswith("qkv/bias"):  # adding one vector to all keys moves no softmax
            shape = (-1, 3, grad.shape[-1]) if grad.shape[-2:-1] == (3,) else (-1, 3, grad.shape[-1] // 3)
            largest = np.abs(grad).reshape(shape)[:, ::2].max(0)
        if leaf.endswith(("embedding", "label/kernel")):  # also every class has its row, the null class too
            largest = np.abs(grad).max(1)
        assert largest.min() > 1e-7, leaf


@every_net
def test_level_and_every_pixel_matter(name, grads):
    by_pixel, by_level = grads(name)[1:]
    assert np.abs(by_pixel).min() > 0 and np.abs(by_level).min() > 1e-4


@every_net
def test_label_matters_and_none_is_the_null_class(name, small, randomised, compiled, batch):
    x, level, _ = batch()
    params = randomised(small(name))
    none, null, nine = (compiled(name)(params, x, level, c) for c in (None, jnp.full(12, 10), jnp.full(12, 9)))
    np.testing.assert_allclose(none, null, rtol=1e-5, atol=1e-6)
    assert jnp.abs(null - nine).max(axis=(1, 2, 3)).min() > 1e-3


@every_net
def test_the_embedding_enters_every_block_by_its_film_and_nowhere_else(name, small, randomised, names, compiled, batch):
    params = randomised(small(name))
    x, level, label = batch()
    leaves, tree = jax.tree.flatten(params)
    films = [i for i, leaf in enumerate(names(params)) if "film" in leaf and leaf.endswith("kernel")]
    assert len(films) >= 2

    def effect(kept):
        """How much of the answer changes with the level if only the film `kept` is there."""
        some = [0 * leaf if i in films and i != kept else leaf for i, leaf in enumerate(leaves)]
        one, other = (compiled(name)(jax.tree.unflatten(tree, some), x, t, label) for t in (level, level[::-1]))
        return float(jnp.abs(one - other).max() / jnp.abs(one).max())

    assert effect(None) == 0
    for film in films:
        assert effect(film) > 1e-4, names(params)[film]


@every_net
def test_rows_are_independent(name, small, randomised, compiled, batch):
    params, (x, level, label) = randomised(small(name)), batch()
    answer = compiled(name)(params, x, level, label)
    changed = compiled(name)(params, x.at[1:].multiply(3), level.at[1:].add(0.01), label.at[1:].set(4))
    np.testing.assert_array_equal(changed[0], answer[0])
    assert jnp.abs(changed[1:] - answer[1:]).max(axis=(1, 2, 3)).min() > 1e-3


@every_net
def test_traced_once(name, jit, small, randomised, batch):
    net, traces = small(name), []
    apply = jit(lambda *args: traces.append(None) or net.apply(*args))
    params, (x, level, label) = randomised(net), batch()
    for tree, scale in ((params, 1), (params, 2), (jax.tree.map(lambda leaf: 2 * leaf, params), 3)):
        apply(tree, scale * x, level / scale, label)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "name, options",
    [("unet", dict(width=0)), ("unet", dict(blocks=0)), ("unet", dict(head_width=0)), ("unet", dict(multipliers=())),
     ("unet", dict(multipliers=(1, 0))), ("mlp", dict(width=15)), ("mlp", dict(width=0)),
     ("edm2", dict(width=0)), ("edm2", dict(width=9)), ("edm2", dict(multipliers=())),
     ("dit", dict(width=-8)), ("dit", dict(depth=-1)), ("dit", dict(heads=-2)), ("dit", dict(patch=0)),
     ("dit", dict(outputs=0)), ("pixel_transformer", dict(patch=(2, 0)))],
)  # fmt: skip
def test_impossible_sizes_are_refused_at_once(name, options):
    with pytest.raises(ValueError, match="at least .*; got"):
        functional(lambda rngs: NETS[name]((8, 8, 1), 0, rngs=rngs, **options))

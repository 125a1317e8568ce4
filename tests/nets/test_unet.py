"""What only the UNet has: names, resolutions, attention, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.ad_checkpoint import saved_residuals

from diffjax.nets import unet
from diffjax.nets.blocks import REMAT
from diffjax.nets.functional import functional


def test_parameters_are_named_by_their_place(small, abstract, names):
    found = set(names(abstract(small("unet"))))
    for part in ("down/0/resample", "up/0/resample", "stem", "head", "embed/hidden", "embed/out"):
        assert {f"{part}/kernel", f"{part}/bias"} <= found
    for place in ("down/0/blocks/0", "down/1/blocks/0", "middle/blocks/1", "up/1/blocks/1"):
        assert {f"{place}/{part}" for part in ("norm1/scale", "conv1/kernel", "film/kernel", "conv2/bias")} <= found
    assert "embed/label/embedding" in found and "down/1/resample/kernel" not in found


@pytest.mark.parametrize(
    "chosen, where",
    [((), set()), ((8,), {"down/0", "up/1", "middle"}), ((8, 4), {"down/0", "down/1", "up/0", "up/1", "middle"}),
     ((4, 5), {"down/1", "up/0", "middle"})],
)  # fmt: skip
def test_attention_is_at_the_chosen_heights_and_between(chosen, where, small, abstract, names):
    found = names(abstract(small("unet", attention=chosen)))
    assert {leaf.split("/attention/")[0] for leaf in found if "/attention/" in leaf} == where


def test_dropout_needs_a_key_and_follows_it(jit, small, randomised, compiled, batch):
    net = small("unet", dropout=0.5)
    params, (x, level, label) = randomised(net), batch()
    draw = jit(lambda seed: net.apply(params, x, level, label, key=jax.random.key(seed)))
    one, same, other = (draw(seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    without = jit(net.apply)(params, x, level, label)
    np.testing.assert_array_equal(without, compiled("unet")(params, x, level, label))
    for a, b in ((one, other), (one, without)):
        assert np.abs(a - b).max(axis=(1, 2, 3)).min() > 1e-2


def test_with_a_key_for_each_row_dropout_is_the_rows_own(jit, small, randomised, batch):
    net = small("unet", dropout=0.5)
    params, (x, level, label) = randomised(net), batch()
    keys = jax.random.split(jax.random.key(0), len(x))
    run = jit(lambda keys, x, level, label: net.apply(params, x, level, label, key=keys))
    whole, part = run(keys, x, level, label), run(keys[4:7], x[4:7], level[4:7], label[4:7])
    np.testing.assert_allclose(part, whole[4:7], atol=1e-4)
    alike = run(keys, jnp.stack([x[0]] * len(x)), jnp.full(len(x), 0.5), jnp.zeros(len(x), int))
    assert len({row.tobytes() for row in np.asarray(alike)}) == len(x)


def test_what_is_computed_again_changes_memory_and_not_gradients(jit, small, randomised, batch):
    x, level, label = batch()
    keys, found, memory = jax.random.split(jax.random.key(0), len(x)), {}, {}
    for policy in REMAT:
        net = small("unet", dropout=0.2, remat=policy)
        loss = lambda params, net=net: jnp.sum(net.apply(params, x, level, label, key=keys) ** 2)  # noqa: E731
        compiled = jit(jax.grad(loss)).lower(randomised(net)).compile()
        found[policy] = compiled(randomised(net))
        memory[policy] = sum(a.size for a, _ in saved_residuals(loss, randomised(net)))
    for policy in ("dots", "blocks"):
        assert jax.tree.structure(found[policy]) == jax.tree.structure(found["none"])
        for a, b in zip(jax.tree.leaves(found[policy]), jax.tree.leaves(found["none"]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert memory["blocks"] < 0.8 * memory["dots"] < 0.8 * memory["none"]


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="no remat 'some'; known: none, dots, blocks"):
        functional(lambda rngs: unet((8, 8, 1), 0, rngs=rngs, remat="some"))


@pytest.mark.parametrize(
    "shape, sentence",
    [
        ((10, 8, 1), "10 x 8 cannot be halved 2 times.*divisible by 4"),
        ((8, 6, 1), "8 x 6"),
        ((2,), "shape .H, W, C.*'mlp'"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_a_sentence(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        functional(lambda rngs: unet(shape, 0, rngs=rngs, width=8, multipliers=(1, 1, 1)))

"""What only the UNet has: names, resolutions, attention, dropout."""

import jax
import numpy as np
import pytest

from diffjax.nets import unet
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

"""Every layout beside a recording of the original: its names and shapes, and what it answers, with weights that are a
function of their names.

originals/*.json were made once by the networks that the layouts are named after, in PyTorch on a CPU, in float32: small
ones, with the options that `net` says in our words.
"""

import functools
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.interchange.layouts import LAYOUTS, chosen, layout
from diffjax.interchange.rules import exported, imported, pair
from diffjax.nets import NETS, functional
from diffjax.training import named
from diffjax.transfer import target_of_net

ORIGINALS = {path.stem: path for path in sorted((Path(__file__).parent / "originals").glob("*.json"))}
TOLERANCE = 2e-5  # of answers of size 1


def value(name, shape):
    """Of the size of a trained weight."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        return (draw / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return (1 + 0.3 * draw if name.endswith("weight") else 0.2 * draw).astype(np.float32)


class Case:
    """A recording, and our network for it."""

    def __init__(self, name):
        said = json.loads(ORIGINALS[name].read_text())
        self.said, self.layout, self.name = said, layout(said["layout"]), said["layout"]
        arrays = {name: value(name, shape) for name, shape in said["tensors"].items()}
        arrays |= {name: np.asarray(fixed, np.float32) for name, fixed in said["fixed"].items()}
        self.arrays = chosen(self.layout, arrays)
        facts = self.layout.facts({}, self.arrays)
        self.net = {"dropout": 0.0, **said["net"], **facts.net}
        if self.net["name"] == "dit":
            del self.net["dropout"]
        shape, options = tuple(said["shape"]), {key: v for key, v in self.net.items() if key != "name"}
        self.module = functional(lambda rngs: NETS[self.net["name"]](shape, said["classes"], rngs=rngs, **options))
        self.target = target_of_net(self.module, self.net, shape, said["classes"])
        self.pairs = pair(self.layout.rows(self.target), self.target.leaves)
        self.fixed = self.layout.fixed(self.target)
        self.ours = imported(self.pairs, self.target.leaves, self.arrays, fixed=self.fixed)


@functools.cache
def case(name):
    return Case(name)


VARIANTS = {"adm_plain", "edm_skip", "edm_adm", "sde_ddpm"}  # of others that are here
SLOW = [pytest.param(name, marks=[pytest.mark.slow] if name in VARIANTS else []) for name in ORIGINALS]


@pytest.mark.parametrize("name", SLOW)
def test_the_imported_network_answers_as_the_original(name):
    one = case(name)
    shapes = jax.eval_shape(one.module.init, jax.random.key(0))
    params = jax.tree.unflatten(jax.tree.structure(shapes), [jnp.asarray(one.ours[leaf]) for leaf in named(shapes)])
    x = np.random.default_rng(0).standard_normal((2, *one.said["shape"])).astype(np.float32)
    label = None if one.said["label"] is None else np.array(one.said["label"], np.int32)
    found = jax.jit(one.module.apply)(params, x, np.array(one.said["level"], np.float32), label)
    wanted = np.reshape(one.said["output"], found.shape) * (-1 if name == "sit" else 1)  # from noise to data there
    assert wanted.std() > 0.3
    assert np.abs(found - wanted).max() <= TOLERANCE * max(1, np.abs(wanted).max())


# What does not come back bit for bit, and to which precision: a sum and a product in one table; a half that is dropped.
ROUNDED = {"edm_ddpmpp": ("map_label.weight", 1e-6), "sit": ("final_layer.linear", np.inf)}


@pytest.mark.parametrize("name", ORIGINALS)
def test_it_goes_back_bit_for_bit(name):
    one = case(name)
    back, (rounded, precision) = exported(one.pairs, one.ours, fixed=one.fixed), ROUNDED.get(name, ("none", 0))
    assert back.keys() == set(one.arrays)
    for tensor, array in back.items():
        if tensor.startswith(rounded):
            assert np.abs(array - one.arrays[tensor]).max() <= precision
        elif tensor == "pos_embed":
            np.testing.assert_allclose(array, one.arrays[tensor], rtol=0, atol=1e-7)
        else:
            np.testing.assert_array_equal(array, one.arrays[tensor], err_msg=tensor)


def test_every_layout_is_seen():
    beside_diffusers = {"diffusers-unet", "diffusers-dit"}  # tests/parity/test_convert.py
    assert {json.loads(path.read_text())["layout"] for path in ORIGINALS.values()} == set(LAYOUTS) - beside_diffusers


@pytest.mark.parametrize("name", ["adm", "dit"])
def test_another_config_is_refused(name):
    one = case(name)
    leaves = {leaf: shape if leaf != "head/bias" else (shape[0] + 1,) for leaf, shape in one.target.leaves.items()}
    with pytest.raises(InputError, match="'head/bias'.*change the config's net"):
        imported(one.pairs, leaves, one.arrays, fixed=one.fixed)
    first = next(iter(one.said["tensors"]))
    for arrays in ({**one.arrays, "more.weight": np.zeros(3)}, {n: one.arrays[n] for n in one.arrays if n != first}):
        with pytest.raises(InputError, match=f"has 'more.weight'|lacks '{first}'"):
            imported(one.pairs, leaves, arrays, fixed=one.fixed)


def test_the_average_of_a_training_checkpoint_is_taken():
    """As score_sde saves: the average is a list, and the model's names have a prefix."""
    trained = {
        "all_modules.0.W": np.zeros(2),
        "all_modules.1.weight": np.ones((2, 2)),
        "all_modules.1.bias": np.ones(2),
    }
    model = {f"model.module.{name}": array for name, array in {"sigmas": np.zeros(3), **trained}.items()}
    shadow = {f"ema.shadow_params.{i}": 2 * array for i, array in enumerate(list(trained.values())[1:])}
    arrays = model | shadow | {"optimizer.state.0.step": np.zeros(1)}
    found = chosen(LAYOUTS["score-sde"], arrays)
    assert list(found) == list(trained)
    np.testing.assert_array_equal(found["all_modules.1.weight"], 2 * np.ones((2, 2)))
    with pytest.raises(InputError, match="averages 1 parameters of 2"):
        chosen(LAYOUTS["score-sde"], {k: v for k, v in arrays.items() if k != "ema.shadow_params.1"})


def test_where_in_a_file_the_weights_are():
    arrays = {f"{root}.{name}": np.full(1, i) for i, root in enumerate(("model", "ema")) for name in ("x.weight",)}
    assert chosen(LAYOUTS["dit"], arrays)["x.weight"] == 1
    assert chosen(LAYOUTS["dit"], arrays, "model")["x.weight"] == 0
    with pytest.raises(InputError, match="nothing below 'opt'; at its top there are: model, ema"):
        chosen(LAYOUTS["dit"], arrays, "opt")

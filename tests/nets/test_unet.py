"""What only the convolutional networks have: names, sizes, ranks, fields, conditions, dropout."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.ad_checkpoint import saved_residuals

from diffjax.nets import CONVOLUTIONAL, unet
from diffjax.nets.blocks import REMAT
from diffjax.nets.design import Design
from diffjax.nets.functional import functional
from diffjax.nets.unet import SHARDING


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
        ((2,), "shape .L, C., .H, W, C. or .D, H, W, C.; got .*'mlp'"),
        ((2, 2, 2, 2, 1), "shape .L, C."),
        ((8, 8, 6, 1), "8 x 8 x 6"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_a_sentence(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        functional(lambda rngs: unet(shape, 0, rngs=rngs, width=8, multipliers=(1, 1, 1)))


ALTERNATIVES = dict(
    width=16, multipliers=(1, 1, 2), blocks=2, dropout=0.5, outputs=2, vector=3, tokens=3, image=2, features="normal",
    frequencies=dict(highest=10.0), feature_width=2, embedding_width=2, early=True, entry="add", groups=1,
    group_width=8, eps=1e-3, attention=(8, 4), middle="first", up="last", heads=1, head_width=4, resample="block",
    padding=(1, 1), taps=(1, 3, 3, 1), project=True, encoder="skip", decoder="skip", residual_scale=0.5,
    dtype="bfloat16", remat="blocks",
)  # fmt: skip
NEEDS = {"taps": dict(encoder="skip"), "project": dict(resample="block"), "middle": dict(attention=())}


@pytest.mark.parametrize("field", Design._fields)
def test_every_field_is_in_the_program(field, abstract, batch):
    def program(**options):
        options = dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,), head_width=8) | options
        net, (x, level, label) = functional(lambda rngs: unet((8, 4, 3), 10, rngs=rngs, **options)), batch()
        apply = jax.make_jaxpr(lambda params, key: net.apply(params, x, level, label, key=key))
        traced = apply(abstract(net), jax.random.key(0))
        return str(traced), [np.asarray(const).tobytes() for const in traced.consts]

    needs = NEEDS.get(field, {})
    assert program(**needs) != program(**needs | {field: ALTERNATIVES[field]})


def test_unknown_options_of_the_features_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'lowest'"):
        functional(lambda rngs: unet((8, 8, 1), 0, rngs=rngs, frequencies=dict(lowest=1.0)))


@pytest.mark.parametrize(
    "options, sentence",
    [(dict(entry="both"), "no entry 'both'; known: film, add"), (dict(encoder="x"), "no encoder 'x'; known: plain"),
     (dict(decoder="x"), "no decoder"), (dict(resample="x"), "no resample"), (dict(middle="x"), "no middle"),
     (dict(up="x"), "no up"), (dict(features="x"), "no features"), (dict(heads=3), "3 heads do not divide"),
     (dict(taps=(1, 2, 1)), "taps of a filter"), (dict(padding=(2, 2)), "padding must be"),
     (dict(outputs=0), "outputs.* at least 1; got"), (dict(groups=0), "groups.* at least 1; got"),
     (dict(image=-1), "image.* at least 0; got"),
     (dict(widht=8), "widht")],
)  # fmt: skip
def test_what_is_not_there_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        functional(
            lambda rngs: unet((8, 8, 1), 0, rngs=rngs, **dict(width=8, multipliers=(1, 2), attention=(8,)) | options)
        )


def thin(kernel, rank):
    """A kernel over fewer axes as one over more that looks at nothing beside it."""
    *sizes, inputs, outputs = kernel.shape
    wide = np.zeros((*sizes, *sizes[:1] * (rank - len(sizes)), inputs, outputs), np.float32)
    middle = (slice(None),) * len(sizes) + (sizes[0] // 2,) * (rank - len(sizes))
    wide[middle] = kernel
    return jnp.asarray(wide)


@pytest.mark.parametrize("name", ["unet", "ddpmpp"])
def test_more_axes_do_what_fewer_do_where_nothing_changes_along_them(name, jit, small, randomised, names):
    """With thin kernels, pictures and volumes that repeat a sequence are answered as the sequence is."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 3)), jnp.float32)
    level, label = jnp.array([0.2, 0.7]), jnp.array([1, 4])
    net = small(name, (8, 3))
    params = randomised(net)
    answer = jit(net.apply)(params, x, level, label)
    leaves, tree = jax.tree.flatten(params)
    for rank in (2, 3):
        spread = [thin(leaf, rank) if leaf.ndim == 3 else leaf for leaf in leaves]
        more = tuple(range(2, rank + 1))
        repeated = jnp.broadcast_to(jnp.expand_dims(x, more), (2, 8, *(4,) * (rank - 1), 3))
        found = jit(small(name, repeated.shape[1:]).apply)(jax.tree.unflatten(tree, spread), repeated, level, label)
        np.testing.assert_allclose(
            found, jnp.broadcast_to(jnp.expand_dims(answer, more), found.shape), rtol=1e-3, atol=1e-4
        )


def test_conditions_matter_and_may_be_absent(jit, small, randomised, batch):
    net = small("unet", tokens=5, image=2, vector=3)
    params, (x, level, label) = randomised(net), batch()
    draw = lambda *shape: jnp.asarray(np.random.default_rng(5).standard_normal(shape), jnp.float32)  # noqa: E731
    full = dict(
        label=label,
        vector=draw(12, 3),
        tokens=draw(12, 4, 5),
        image=draw(*x.shape[:-1], 2),
        mask=jnp.ones((12, 4), bool),
    )
    apply = jit(lambda cond: net.apply(params, x, level, cond))
    whole = apply(full)

    def moved(cond, other=whole):
        return np.abs(apply(cond) - other).max(axis=(1, 2, 3))

    for kind in ("label", "vector", "tokens", "image"):
        assert moved(full | {kind: full[kind][::-1]}).max() > 1e-3, kind
    some = full | {"mask": full["mask"].at[:, 2:].set(False)}
    assert moved(some).min() > 1e-4
    assert moved(some | {"tokens": full["tokens"].at[:, 2:].multiply(3)}, apply(some)).max() < 1e-5
    none = apply({"label": label})
    empty = dict(vector=jnp.zeros((12, 3)), image=jnp.zeros_like(full["image"]), mask=jnp.zeros((12, 4), bool))
    assert moved(full | empty, none).max() < 1e-5


def test_an_image_of_another_size_is_refused(small, abstract, batch):
    net, (x, level, _) = small("unet", image=2), batch()
    with pytest.raises(
        ValueError, match=r"image of the condition must be \[12, 8, 4, 2\], like x; got \[12, 4, 4, 2\]"
    ):
        jax.eval_shape(net.apply, abstract(net), x, level, {"image": jnp.zeros((12, 4, 4, 2))})


def test_several_answers_are_channels(small, abstract, batch):
    net, (x, level, label) = small("ncsnpp", outputs=2, decoder="skip"), batch()
    assert jax.eval_shape(net.apply, abstract(net), x, level, label).shape == (12, 8, 4, 6)


@pytest.mark.parametrize("name, up, middle", [("unet", 3, 2), ("ddpm", 3, 1), ("adm", 3, 1), ("ncsnpp", 1, 1)])
def test_which_blocks_attend(name, up, middle, small, abstract):
    """All on the way down; on the way up, and in the middle, as the design says."""
    params = abstract(small(name, blocks=2, attention=(4,)))
    places = params["down"][1], params["up"][0], params["middle"]
    assert [len(place["attention"]) for place in places] == [2, up, middle]


@pytest.mark.parametrize("shape", [(8, 3), (8, 4, 3), (8, 4, 4, 3)])
def test_what_is_wide_in_a_block_can_be_split_whatever_the_rank(shape, small, abstract):
    params = abstract(small("adm", shape, tokens=5))
    wide = {"conv1": -1, "conv2": -2, "qkv": -1, "q": -1, "kv": -1, "out": -2}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(str(key.key) for key in path)
        rows = [axes for pattern, axes in SHARDING if len(axes) == leaf.ndim and re.search(f"(^|/){pattern}$", name)]
        *place, layer, kind = name.split("/")
        expected = kind == "kernel" and layer in wide and place[0] in ("down", "middle", "up")
        assert len(rows) == expected, name
        assert not expected or rows[0].index("tensor") - leaf.ndim == wide[layer], name


COUNTS = {
    "ddpm": (
        35_746_307,
        (32, 32, 3),
        0,
        {},
    ),  # diffusers' UNet2DModel as google/ddpm-cifar10-32 configures it has as many
    "adm": (295_900_035, (64, 64, 3), 1000, {}),
    "ddpmpp": (55_735_299, (32, 32, 3), 10, dict(vector=9)),
    "ncsnpp": (56_400_643, (32, 32, 3), 10, dict(vector=9)),
}
PUBLISHED = {
    "ddpm": 35.7,
    "adm": 296.0,
    "ddpmpp": 55.7,
}  # millions: Ho 2020, B; Dhariwal 2021, tab. 4; Karras 2022, tab. 7


@pytest.mark.parametrize("name", COUNTS)
def test_as_many_parameters_as_published(name, abstract):
    count, shape, classes, options = COUNTS[name]
    net = functional(lambda rngs: CONVOLUTIONAL[name](shape, classes, rngs=rngs, **options))
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract(net))) == count
    assert f"{count:,}" in Path("docs/networks.md").read_text()
    if name in PUBLISHED:
        assert abs(count / 1e6 - PUBLISHED[name]) < 2e-3 * PUBLISHED[name]

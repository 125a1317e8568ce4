"""What only transformers have: patches, positions, a stack of blocks, conditions of every kind, data of any rank."""

import itertools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax._src.ad_checkpoint import saved_residuals

from diffjax.nets import NETS
from diffjax.nets.blocks import REMAT
from diffjax.nets.functional import functional
from diffjax.nets.layer_norm import NORMS, unit
from diffjax.nets.patches import patchify, unpatchify
from diffjax.nets.positions import Rotary, Sincos, turned
from diffjax.nets.stack import run, stacked
from diffjax.training.cost import flops

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
DRAW = np.random.default_rng(0)


def random_array(*shape):
    return jnp.asarray(DRAW.standard_normal(shape), jnp.result_type(float))


def inputs(*shape):
    return random_array(3, *shape), jnp.linspace(0.1, 0.9, 3), jnp.arange(3)


@pytest.mark.parametrize("space, patch", [((12,), (3,)), ((4, 6), (2, 3)), ((2, 4, 6), (1, 2, 2))])
def test_patches_are_tiles_and_come_back(space, patch):
    x = random_array(2, *space, 5)
    tokens = patchify(x, patch)
    for place in itertools.product(*(range(n // p) for n, p in zip(space, patch, strict=True))):
        tile = x[(slice(None), *(slice(i * p, (i + 1) * p) for i, p in zip(place, patch, strict=True)))]
        np.testing.assert_array_equal(tokens[(slice(None), *place)], tile.reshape(2, -1))
    np.testing.assert_array_equal(unpatchify(tokens, patch), x)


@pytest.mark.parametrize("grid, width", [((5,), 8), ((3, 4), 16), ((2, 3, 4), 32)])
def test_waves_of_every_axis_the_last_first(grid, width):
    """Sines, then cosines, of position / 10000^(i / n) with n = width / (2 axes); channels over are left alone."""
    h = random_array(2, *grid, width)
    added = np.asarray(Sincos(grid, width, head=8, rngs=nnx.Rngs(0))(h)[0] - h)
    n = width // (2 * len(grid))
    for place in itertools.product(*map(range, grid)):
        angles = [[p / 10000 ** (i / n) for i in range(n)] for p in reversed(place)]
        wanted = [f(a) for axis in angles for f in (math.sin, math.cos) for a in axis]
        np.testing.assert_allclose(
            added[(0, *place)], wanted + [0] * (width - len(wanted)), atol=1e-6, err_msg=str(place)
        )


@pytest.mark.parametrize("grid, head", [((7,), 8), ((4, 5), 8), ((2, 3, 4), 16)])
def test_turning_keeps_lengths_and_scores_depend_on_differences_of_positions(grid, head):
    rotary = Rotary(grid, 8, head=head, rngs=nnx.Rngs(0))
    h = random_array(1, *grid, 8)
    same, angles = rotary(h)
    assert same is h and angles.shape == (*grid, head // 2)
    q, k = (jnp.broadcast_to(random_array(head), (1, *grid, 1, head)) for _ in range(2))  # one vector everywhere
    q, k = turned(q, angles)[0, ..., 0, :], turned(k, angles)[0, ..., 0, :]
    np.testing.assert_allclose(jnp.linalg.norm(q, axis=-1), jnp.linalg.norm(q.reshape(-1, head)[0]), rtol=1e-5)
    by_difference: dict = {}
    for one, two in itertools.product(itertools.product(*map(range, grid)), repeat=2):
        by_difference.setdefault(tuple(np.subtract(one, two)), []).append(float(q[one] @ k[two]))
    assert max(np.ptp(scores) for scores in by_difference.values()) < 1e-4
    for axis in range(len(grid)):  # and on the difference along every axis
        step = tuple(int(i == axis) for i in range(len(grid)))
        assert abs(by_difference[step][0] - by_difference[(0,) * len(grid)][0]) > 1e-3


def plain(x, scale, shift, centred):
    x = x - x.mean(-1, keepdims=True) if centred else x
    xhat = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return xhat * (1 + scale[:, None, None]) + shift[:, None, None]


@pytest.mark.parametrize("name", NORMS)
def test_norms_and_their_gradients_are_those_of_the_formula(name, x64):
    x, scale, shift, mix = (
        random_array(2, 3, 4, 6) + 1,
        random_array(2, 6),
        random_array(2, 6),
        random_array(2, 3, 4, 6),
    )
    ours, theirs = (
        jax.jit(jax.value_and_grad(lambda *a, f=f: jnp.sum(mix * f(*a)), (0, 1, 2)))(x, scale, shift)
        for f in (NORMS[name], lambda *a: plain(*a, name == "layer"))
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(unit(x, scale[0]), plain(x, 0 * scale, 0 * shift, False) * scale[0].reshape(1, 1, 1, 6))


@pytest.mark.parametrize("name", NORMS)
def test_of_rough_numbers_only_results_are_rounded(name):
    """In bfloat16 the answer and all gradients are those of float32, rounded once."""
    rough = [a.astype(jnp.bfloat16) for a in (random_array(2, 300, 64) + 3, random_array(2, 64), random_array(2, 64))]
    mix = random_array(2, 300, 64).astype(jnp.bfloat16)

    def all_of(*args):
        y, pull = jax.vjp(NORMS[name], *args)
        return y, *pull(mix.astype(y.dtype))

    for a, b in zip(all_of(*rough), all_of(*(r.astype(jnp.float32) for r in rough)), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=2**-8, atol=1e-5)


def test_a_stack_is_a_loop_over_its_slices():
    def make(rngs):
        return nnx.Linear(4, 4, rngs=rngs)

    blocks, h = stacked(make, 3, rngs=nnx.Rngs(0)), random_array(2, 4)
    state = nnx.to_pure_dict(nnx.state(blocks))
    assert len({float(k) for k in state["kernel"][:, 0, 0]}) == 3
    wanted = h
    for i in range(3):
        wanted = wanted @ state["kernel"][i] + state["bias"][i][None]
    for policy in REMAT:
        np.testing.assert_allclose(run(blocks, policy, h), wanted, rtol=1e-5)


@pytest.fixture(scope="module")
def by_policy(jit, small, randomised):
    """The gradient of each policy, compiled, with its value."""
    args = inputs(8, 4, 3)

    def gradient(policy):
        net = small("dit", remat=policy, depth=3)
        return jit(jax.grad(lambda p: jnp.sum(net.apply(p, *args) ** 2))).lower(randomised(net)).compile()

    net = small("dit", depth=3)
    return {policy: (found := gradient(policy), found(randomised(net))) for policy in REMAT}


def test_what_is_computed_again_changes_memory_and_not_gradients(by_policy):
    for policy in ("dots", "blocks"):
        for a, b in zip(*(jax.tree.leaves(by_policy[p][1]) for p in (policy, "none")), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    memory = [by_policy[policy][0].memory_analysis().temp_size_in_bytes for policy in ("blocks", "dots", "none")]
    assert memory == sorted(set(memory))


def test_dots_keeps_the_products_of_a_block_and_nothing_else(small, abstract):
    """Of a patch qkv, out, and the two layers of the MLP: 3 + 1 + 4 + 1 widths; of a row its six scales and shifts."""
    depth, rows, width, patches, kept = 3, 3, 16, 64, {}
    for policy in REMAT:
        net = small("dit", (16, 16, 3), remat=policy, depth=depth)
        loss = lambda p, net=net: jnp.sum(net.apply(p, *inputs(16, 16, 3)) ** 2)  # noqa: E731
        kept[policy] = sum(a.size for a, _ in saved_residuals(loss, abstract(net)))
    assert kept["dots"] - kept["blocks"] == depth * rows * width * (9 * patches + 6)
    assert kept["dots"] < 0.32 * kept["none"]  # 592 of 1879 MB, as DiT-S/2 was planned with a batch of 8


@pytest.mark.parametrize("name", ["dit", "pixel_transformer"])
def test_a_program_is_as_long_at_any_depth(name, small, abstract):
    def length(depth):
        net = small(name, depth=depth)
        gradient = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, *inputs(8, 4, 3)) ** 2)))
        return len(gradient.lower(abstract(net)).as_text().splitlines())

    assert length(24) <= 1.05 * length(3)


VARIANTS = {
    "trajectory": ((16, 2), dict(patch=4)),
    "patch per axis": ((8, 4, 3), dict(patch=(4, 2))),
    "video": ((4, 4, 6, 2), dict(patch=(1, 2, 2), attention="factorised", positions="rotary", heads=1, width=16)),
    "whole video": ((4, 4, 6, 2), dict(patch=2, width=24)),
    "learned": ((8, 4, 3), dict(positions="learned")),
    "rms swiglu": ((8, 4, 3), dict(norm="rms", mlp="swiglu", qk_norm=True, positions=("sincos", "rotary"))),
    "variance": ((8, 4, 3), dict(outputs=2)),
    "all conditions": ((8, 4, 3), dict(vector=5, image=2, tokens=6)),
    "in front": ((8, 4, 3), dict(tokens=6, context="prefix", class_tokens=2, positions="rotary")),
}


def condition(options, shape):
    """One of every kind that the network of these options reads."""
    given = {"label": jnp.arange(3)}
    given |= {"vector": random_array(3, options["vector"])} if "vector" in options else {}
    given |= {"image": random_array(3, *shape[:-1], options["image"])} if "image" in options else {}
    if "tokens" in options:
        given |= {
            "tokens": random_array(3, 4, options["tokens"]),
            "mask": jnp.asarray(np.arange(4) < np.array([[4], [2], [0]])),
        }
    return given


@pytest.mark.parametrize("shape, options", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_uses_all_it_has_and_is_told(shape, options, small, randomised, names, jit):
    """Also that a new one answers zero, that rows are independent, and that no condition at all is one."""
    net, (x, level, _) = small("dit", shape, **options), inputs(*shape)
    cond, params = condition(options, shape), randomised(small("dit", shape, **options))
    floats = {kind: a for kind, a in cond.items() if kind not in ("label", "mask")}

    def mixture(params, x, floats):
        out = net.apply(params, x, level, cond | floats)
        assert out.shape == (*x.shape[:-1], options.get("outputs", 1) * x.shape[-1])
        return jnp.sum(out * mix[..., : out.shape[-1]]), out

    mix = random_array(3, *shape[:-1], 2 * shape[-1])
    (_, out), grads = jit(jax.value_and_grad(mixture, argnums=(0, 1, 2), has_aux=True))(params, x, floats)
    for leaf, grad in zip(names(grads[0]), jax.tree.leaves(grads[0]), strict=True):
        assert np.abs(grad).max() > 1e-6, leaf
    assert jnp.abs(grads[1]).min() > 0
    if "tokens" in floats:
        heard = jnp.abs(grads[2]["tokens"]).max(axis=-1) > 0
        np.testing.assert_array_equal(heard, cond["mask"])
    for kind in set(floats) - {"tokens"}:
        assert jnp.abs(grads[2][kind]).min() > 0
    alone = jax.jit(net.apply)(params, x[1:2], level[1:2], jax.tree.map(lambda a: a[1:2], cond))
    np.testing.assert_allclose(alone, out[1:2], rtol=2e-3, atol=2e-3)


def test_blocks_of_a_video_mix_within_frames_and_then_across(small, randomised, jit):
    """With one kind of blocks silenced, a patch feels its frame alone, or itself in all frames."""
    shape, options = VARIANTS["video"]
    net, (x, level, label) = small("dit", shape, **options), inputs(*shape)
    felt = jit(jax.grad(lambda x, p: jnp.sum(net.apply(p, x, level, label)[:, 1, 2:4, 2:4])))  # one patch of frame 1
    for silent in ("space", "time"):
        params = randomised(net)
        params["blocks"][silent]["film"] = jax.tree.map(jnp.zeros_like, params["blocks"][silent]["film"])
        patches = np.abs(felt(x, params)).max(axis=(0, 4)).reshape(4, 2, 2, 3, 2).max(axis=(2, 4)) > 0
        here = np.zeros((4, 2, 3), bool)
        if silent == "time":
            here[1] = True
        else:
            here[:, 1, 1] = True
        np.testing.assert_array_equal(patches, here)


@pytest.mark.parametrize("name", ["all conditions", "in front"])
def test_no_tokens_are_tokens_that_are_not_there(name, small, randomised, jit):
    shape, options = VARIANTS[name]
    net, (x, level, _) = small("dit", shape, **options), inputs(*shape)
    cond, params, apply = condition(options, shape), randomised(small("dit", shape, **options)), jit(net.apply)
    hidden = apply(params, x, level, cond | {"mask": jnp.zeros((3, 4), bool)})
    absent = apply(params, x, level, {k: v for k, v in cond.items() if k not in ("tokens", "mask")})
    np.testing.assert_allclose(hidden, absent, rtol=1e-4, atol=1e-4)
    whole = apply(params, x, level, {k: v for k, v in cond.items() if k != "mask"})
    masked = apply(params, x, level, cond)
    np.testing.assert_allclose(masked[0], whole[0], rtol=1e-4, atol=1e-4)  # the first row has all
    assert jnp.abs(masked - whole)[1:].max(axis=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_any_size_will_do(positions, small, randomised, jit):
    """What was made for one size answers at another as what was made for that, with the same parameters."""
    net, other = (small("dit", shape, positions=positions) for shape in ((8, 4, 3), (4, 12, 3)))
    params, (x, level, label) = randomised(net), inputs(4, 12, 3)
    np.testing.assert_array_equal(*(jit(n.apply)(params, x, level, label) for n in (net, other)))


@pytest.mark.parametrize(
    "shape, options, sentence",
    [((8, 4, 3), dict(positions="learned"), "learned positions are for a grid of .4, 2. patches; got .2, 6."),
     ((8, 4, 3), dict(), "patches of .2, 2. do not tile data of .4, 11.")],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused_while_tracing(shape, options, sentence, small, abstract):
    net = small("dit", shape, **options)
    x, level, label = inputs(4, 12 if options else 11, 3)
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(net.apply, abstract(net), x, level, label)


@pytest.mark.parametrize(
    "shape, options, sentence",
    [((8,), {}, r"needs data of shape \(\*space, C\); got \(8,\); for points use net 'mlp'"),
     ((8, 6, 3), dict(patch=4), r"patches of \(4, 4\) do not tile data of \(8, 6\)"),
     ((8, 8, 3), dict(patch=(2, 2, 2)), "do not tile"),
     ((8, 8, 3), dict(width=16, heads=3), "multiple of heads; got 16 and 3"),
     ((8, 8, 3), dict(size="M"), "no size 'M'; known: S, B, L, XL, H"),
     ((8, 8, 3), dict(positions=("sincos", "turned")), "no positions 'turned'; known: sincos, learned, rotary"),
     ((8, 8, 3), dict(mlp="relu"), "no mlp 'relu'; known: gelu, erf_gelu, quick_gelu, swiglu"),
     ((8, 8, 3), dict(norm="batch"), "no norm"), ((8, 8, 3), dict(context="beside"), "no context"),
     ((8, 8, 3), dict(attention="local"), "no attention"), ((8, 8, 3), dict(remat="some"), "no remat"),
     ((8, 8, 3), dict(width=2, heads=1), "'sincos' need a width of at least 4; got 2"),
     ((8, 8, 3), dict(width=4, heads=2, positions="rotary"), "'rotary' need heads of an even width of at least 4"),
     ((4, 8, 8, 3), dict(attention="factorised", depth=3), "factorised.*even depth.*depth 3"),
     ((4, 8, 8, 3), dict(attention="factorised", class_tokens=3), "nothing before the patches")],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        functional(lambda rngs: NETS["dit"](shape, 0, rngs=rngs, **dict(patch=2, depth=2) | options))


def sizes():
    """Of the published networks, on latents of 32 x 32 x 4: (name, million parameters, G multiply-adds forward)."""
    for size, patch in itertools.product(("S", "B", "L", "XL"), (2, 4, 8)):
        make = lambda rngs, size=size, patch=patch: NETS["dit"](  # noqa: E731
            (32, 32, 4), 1000, rngs=rngs, size=size, patch=patch, outputs=2
        )
        net = functional(make)
        params = jax.eval_shape(net.init, jax.random.key(0))
        program = jax.make_jaxpr(net.apply)(params, jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        yield f"DiT-{size}/{patch}", count / 1e6, flops(program.jaxpr) / 2e9


def test_the_table_of_sizes_is_counted_and_that_of_the_paper():
    """Peebles & Xie 2023, table 4; theirs has positions among the parameters, at most 0.3 million."""
    published = {"DiT-S/2": (33, 6.06), "DiT-B/2": (130, 23.01), "DiT-L/2": (458, 80.71), "DiT-XL/2": (675, 118.64)}
    found = {name: counts for name, *counts in sizes()}
    for name, (count, products) in published.items():
        assert abs(found[name][0] - count) < 1 and found[name][1] == pytest.approx(products, rel=0.003)
    rows = re.findall(r"^\| (DiT-\S+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(), re.MULTILINE)
    wanted = [(name, f"{a:.1f}", f"{b:.2f}", f"{2 * b:.1f}") for name, (a, b) in found.items()]
    assert rows == wanted, "\n".join(f"| {' | '.join(row)} |" for row in wanted)

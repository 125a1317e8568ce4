"""The laws of converting, on toy networks: back is back, bit for bit, and nothing is left over in silence."""

import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.interchange import forms
from diffjax.interchange.forms import CONV, LINEAR, NORM, TABLE, each
from diffjax.interchange.rules import Row, exported, imported, pair

DRAW = np.random.default_rng(0)

# form -> (theirs, ours)
SHAPES = {
    "same": (forms.same, [(5, 3)], (5, 3)),
    "flat": (forms.flat, [(6,)], (3, 2)),
    "leading": (forms.leading(2), [(1, 1, 6)], (6,)),
    "linear": (forms.linear, [(6, 4)], (4, 6)),
    "linear, grouped": (forms.linear, [(6, 4)], (4, 3, 2)),
    "conv of rank 1": (forms.conv, [(5, 4, 3)], (3, 4, 5)),
    "conv of rank 2": (forms.conv, [(5, 4, 3, 2)], (3, 2, 4, 5)),
    "conv of rank 3": (forms.conv, [(6, 5, 4, 3, 2)], (4, 3, 2, 5, 6)),
    "pointwise": (forms.pointwise(2), [(5, 4, 1, 1)], (4, 5)),
    "patches": (forms.patches((2, 3)), [(7, 4, 2, 3)], (24, 7)),
    "q, k, v": (forms.joined(forms.linear, 3), [(2, 4)] * 3, (4, 6)),
    "q, k, v, grouped": (forms.joined(forms.linear, 3), [(2, 4)] * 3, (4, 3, 2)),
    "q, k, v, bias": (forms.joined(forms.flat, 3), [(2,)] * 3, (6,)),
    "by head": (forms.reordered(forms.linear, forms.by_head(2)), [(12, 4)], (4, 12)),
    "by head, last": (forms.reordered(forms.linear, forms.by_head(2, last=True)), [(12, 4)], (4, 12)),
    "stacked": (forms.stacked(forms.joined(forms.linear, 2), 3), [(2, 5)] * 6, (3, 5, 4)),
    "with null": (forms.with_null(forms.same), [(4, 3)], (5, 3)),
    "absent": (forms.absent(), [], (5, 3)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_form_has_an_inverse(case):
    form, theirs, shape = SHAPES[case]
    arrays = [DRAW.standard_normal(s).astype(np.float32) for s in theirs]
    ours = form.ours(arrays, shape)
    assert ours.shape == shape
    for back, array in zip(form.theirs(ours), arrays, strict=True):
        np.testing.assert_array_equal(back, array)


def test_forms_mean_what_they_say():
    """Against the layers themselves: y = W x there, x @ W here."""
    x, weight = DRAW.standard_normal(4), DRAW.standard_normal((6, 4))
    np.testing.assert_allclose(x @ forms.linear.ours([weight], (4, 6)), weight @ x)
    kernel = DRAW.standard_normal((5, 3, 2, 4))  # of torch
    picture = DRAW.standard_normal((2, 4, 3))  # a patch as large as the kernel
    want = np.einsum("oikl,kli->o", kernel, picture)
    np.testing.assert_allclose(np.einsum("klio,kli->o", forms.conv.ours([kernel], ()), picture), want)
    np.testing.assert_allclose(picture.reshape(-1) @ forms.patches((2, 4)).ours([kernel], (24, 5)), want)
    q, k, v = DRAW.standard_normal((3, 2, 5))  # of two heads, of 5 channels
    whole = np.concatenate([q.ravel(), k.ravel(), v.ravel()])
    theirs = np.stack([np.stack([q[h], k[h], v[h]]) for h in range(2)])
    for form, order in ((theirs, {}), (theirs.swapaxes(1, 2), {"last": True})):
        np.testing.assert_array_equal(form.reshape(-1)[forms.by_head(2, **order)(30)], whole)


ROWS = [
    Row("stem", "conv_in", CONV),
    Row(r"down/(\d+)/norm", "blocks.{}.norm", NORM),
    Row(r"down/(\d+)/qkv", ("blocks.{0}.q", "blocks.{0}.k", "blocks.{0}.v"), each(LINEAR, forms.joined, 3)),
    Row("label", lambda: "classes", TABLE),
]
LEAVES = {
    "stem/kernel": (3, 3, 2, 4), "stem/bias": (4,), "down/0/norm/scale": (4,), "down/0/norm/bias": (4,),
    "down/10/qkv/kernel": (4, 12), "down/10/qkv/bias": (12,), "label/embedding": (5, 4),
}  # fmt: skip


def theirs():
    shapes = {
        "conv_in.weight": (4, 2, 3, 3),
        "conv_in.bias": (4,),
        "blocks.0.norm.weight": (4,),
        "classes.weight": (5, 4),
    }
    shapes |= {"blocks.0.norm.bias": (4,)} | {f"blocks.10.{n}.weight": (4, 4) for n in "qkv"}
    shapes |= {f"blocks.10.{n}.bias": (4,) for n in "qkv"}
    return {name: DRAW.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_table_reads_both_ways():
    given = theirs()
    ours = imported(pair(ROWS, LEAVES), LEAVES, given)
    assert {name: array.shape for name, array in ours.items()} == LEAVES
    back = exported(pair(ROWS, LEAVES), ours)
    assert back.keys() == given.keys()
    for name in given:
        np.testing.assert_array_equal(back[name], given[name])


def spoiled(name, array):
    given = theirs()
    if array is None:
        del given[name]
    else:
        given[name] = array
    return given


@pytest.mark.parametrize(
    "given, says",
    [
        (spoiled("blocks.10.k.bias", None), "lacks 'blocks.10.k.bias', of which our 'down/10/qkv/bias' is made"),
        (spoiled("more.weight", np.zeros((2, 3))), r"has 'more.weight' \[2, 3\], for which"),
        (spoiled("classes.weight", np.zeros((6, 4))), r"is \[6, 4\] in the file and would be \[5, 4\] for our 'label"),
        (spoiled("blocks.10.q.weight", np.zeros((8, 4))), r"\[8, 4\] in the file and would be \[4, 4\]"),
    ],
)
def test_what_does_not_fit_is_named(given, says):
    with pytest.raises(InputError, match=says):
        imported(pair(ROWS, LEAVES), LEAVES, given)


def test_fixed_arrays_are_compared_and_written_again():
    fixed = {"grid": np.arange(3, dtype=np.float32)}
    pairs = pair(ROWS, LEAVES)
    ours = imported(pairs, LEAVES, theirs() | fixed, fixed=fixed)
    np.testing.assert_array_equal(exported(pairs, ours, fixed=fixed)["grid"], fixed["grid"])
    for wrong, says in (
        ({"grid": np.ones(3)}, "differs by 1"),
        ({"grid": np.ones(2)}, "would be .3."),
        ({}, "lacks 'grid'"),
    ):
        with pytest.raises(InputError, match=says):
            imported(pairs, LEAVES, theirs() | wrong, fixed=fixed)


@pytest.mark.parametrize(
    "rows, says",
    [
        (ROWS[1:], "no place for our 'stem/kernel'"),
        ([*ROWS, ROWS[0]], "several places for our 'stem/kernel'"),
        (
            [ROWS[0]._replace(ours="stem|label/none"), *ROWS[1:3], Row("label", "conv_in", TABLE)],
            "'conv_in.weight' for 2",
        ),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(rows, says):
    with pytest.raises(InputError, match=says):
        pair(rows, LEAVES)


def test_what_the_other_library_cannot_hold_is_not_exported():
    leaves = {"label/embedding": (5, 4)}
    pairs = pair([Row("label", "classes", each(TABLE, forms.with_null))], leaves)
    ours = imported(pairs, leaves, {"classes.weight": np.ones((4, 4), np.float32)})
    assert exported(pairs, ours)["classes.weight"].shape == (4, 4)
    ours["label/embedding"][-1, 0] = 1
    with pytest.raises(InputError, match="'label/embedding' cannot be exported: .* no null class"):
        exported(pairs, ours)

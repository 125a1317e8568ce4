"""What is done to pictures before a network reads them, beside Pillow and beside derivations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffjax.evaluation import Pipeline, checked, prepare
from diffjax.evaluation.pipeline import RESIZES

COMPILED = {name: jax.jit(resize, static_argnums=1) for name, resize in RESIZES.items()}  # quicker than step by step
DRAW = np.random.default_rng(0)
PLAIN = Pipeline((0.0, 1.0), "none", 1, (6, 4), "bilinear", (0.0,), (1.0,))
SIZES = [(20, 12), (7, 5), (13, 30)]


def pillow(x, size, filter):
    """In floating point, which Pillow does one channel at a time."""
    return np.asarray(Image.fromarray(x).resize(size[::-1], filter))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name, filter", [("bilinear_antialiased", 2), ("bicubic_antialiased", 3)])
def test_antialiased_resizes_are_pillows(name, filter, size):
    x = DRAW.uniform(0, 255, (13, 11)).astype(np.float32)
    ours = COMPILED[name](jnp.asarray(x)[None, :, :, None], size)[0, ..., 0]
    np.testing.assert_allclose(ours, pillow(x, size, filter), rtol=0, atol=1e-3)  # of 255: measured 1e-4
    bits = DRAW.integers(0, 256, (13, 11), np.uint8)
    ours = COMPILED[name](jnp.asarray(bits, jnp.float32)[None, :, :, None], size)[0, ..., 0]
    gap = np.abs(np.clip(ours, 0, 255) - pillow(bits, size, filter))  # it rounds after rows, and after columns
    assert gap.mean() < 0.5
    assert gap.max() < 1 or name.startswith("bicubic")  # whose overshoot it also clips in between


@pytest.mark.parametrize("name", RESIZES)
@pytest.mark.parametrize("size", SIZES)
def test_resizes_keep_constants_and_lines(name, size):
    constant = COMPILED[name](jnp.full((1, 13, 11, 2), 0.7), size)
    np.testing.assert_allclose(constant, 0.7, rtol=1e-5)
    if size[0] < 13 and "antialiased" in name:  # wider filters are sampled, and keep lines but nearly
        return
    line = jnp.broadcast_to(jnp.arange(13.0)[None, :, None, None], (1, 13, 4, 1))
    found = COMPILED[name](line, (size[0], 4))[0, :, 0, 0]
    scale, half = 13 / size[0], 0.0 if name == "bilinear_corners" else 0.5
    where = (np.arange(size[0]) + half) * scale - half
    inside = (where >= 2) & (where <= 10)  # of a filter: at the ends it is cut off
    np.testing.assert_allclose(found[inside], where[inside], atol=1e-4)


def test_corners_are_where_tensorflow_1_had_them():
    x = jnp.asarray(DRAW.uniform(size=(1, 4, 3, 1)), jnp.float32)
    found = COMPILED["bilinear_corners"](x, (8, 6))
    np.testing.assert_allclose(found[:, ::2, ::2], x, atol=1e-6)
    np.testing.assert_allclose(found[:, 1:-1:2, ::2], (x[:, 1:] + x[:, :-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(found[:, -1, ::2], x[:, -1], atol=1e-6)  # the end is repeated


def test_every_step_of_the_pipeline():
    x = jnp.asarray(DRAW.uniform(-3, 3, (2, 6, 4, 1)), jnp.float32)
    whole = PLAIN._replace(range=(-2.0, 2.0), rounding="round", channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    bits = np.rint(255 * (np.clip(np.asarray(x), -2, 2) + 2) / 4)
    np.testing.assert_allclose(prepare(whole, x), (bits / 255 - np.array([0.1, 0.2, 0.3])) / [0.5, 1, 2], atol=1e-5)
    exact = prepare(PLAIN._replace(range=(-2.0, 2.0)), x)
    np.testing.assert_allclose(exact, (np.clip(x, -2, 2) + 2) / 4, atol=1e-6)
    large = prepare(PLAIN._replace(size=(9, 9), resize="bicubic_antialiased"), jnp.round(jnp.clip(x, 0, 1)))
    assert large.shape == (2, 9, 9, 1) and large.min() == 0 and large.max() == 1  # where a cubic would shoot over


@pytest.mark.parametrize(
    "changes, shape, says",
    [(dict(), (5,), "no pictures"), (dict(), (6, 4, 4), "no pictures"), (dict(resize="area"), (6, 4, 1), "no resize"),
     (dict(rounding="up"), (6, 4, 1), "no rounding 'up'; known: round, none"), (dict(size=(0, 4)), (6, 4, 1), "1 x 1")],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes, shape, says):
    with pytest.raises(ValueError, match=says):
        checked(PLAIN._replace(**changes), shape)

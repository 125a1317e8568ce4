"""Pictures show the samples, and files hold them."""

import json

import numpy as np
import pytest
from PIL import Image

from diffjax.evaluation import picture, write
from diffjax.evaluation.pictures import CAPTION, GAP, PAPER, to_pixels

UNIT = (-1.0, 1.0)


def samples(n, height=8, width=8, channels=3, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, height, width, channels)).astype(np.float32)


def tiles(sheet, x, columns, *, top=0):
    """The picture cut back into its samples, [N, H, W, 3], after checking that each pixel is one square."""
    scale = max(1, 64 // x.shape[2])
    height, width = x.shape[1] * scale, x.shape[2] * scale
    pixels, found = np.asarray(sheet), []
    for i in range(len(x)):
        left, upper = GAP + i % columns * (width + GAP), GAP + i // columns * (height + top + GAP) + top
        tile = pixels[upper : upper + height, left : left + width]
        small = tile[::scale, ::scale]
        np.testing.assert_array_equal(tile, small.repeat(scale, 0).repeat(scale, 1))
        found.append(small)
    return np.stack(found)


@pytest.mark.parametrize("value, pixel", [(-1, 0), (1, 255), (-9, 0), (9, 255), (0.5, 191), (-0.998, 0), (-0.994, 1)])
def test_values_are_clipped_and_rounded(value, pixel):
    assert to_pixels(np.full((1, 1, 1), value), UNIT) == pixel
    assert to_pixels(np.full((1, 1, 1), 127.5 * (value + 1)), (0, 255)) == pixel


@pytest.mark.parametrize(
    "n, height, width, channels, columns", [(9, 8, 8, 3, 3), (5, 8, 4, 1, 3), (1, 100, 80, 3, 1), (3, 6, 10, 3, 2)]
)
def test_the_grid_is_the_samples(n, height, width, channels, columns):
    x = samples(n, height, width, channels)
    sheet = picture(x, UNIT)
    expected = np.rint((x + 1) * 127.5).clip(0, 255)
    shown = tiles(sheet, x, columns)
    assert np.abs(shown - expected).max() <= 1 and (shown == expected).mean() > 0.99
    scale, rows = max(1, 64 // width), -(-n // columns)
    assert sheet.size == (columns * (width * scale + GAP) + GAP, rows * (height * scale + GAP) + GAP)
    assert sheet.getpixel((0, 0)) == PAPER


@pytest.mark.parametrize(
    "labels, columns",
    [(np.arange(12) % 4, 4), (np.arange(30) % 10, 10), (np.arange(9) % 3, 3), (np.arange(50) % 25, 8),
     (np.array([0, 1, 2, 3, 3, 2, 1, 0, 9]), 3)],
)  # fmt: skip
def test_cycling_labels_get_a_column_each(labels, columns):
    x = samples(len(labels), seed=1)
    shown = tiles(picture(x, UNIT, labels=labels), x, columns, top=CAPTION)
    np.testing.assert_array_equal(shown, to_pixels(x, UNIT))


def test_captions_are_above_their_samples():
    x = np.full((4, 8, 8, 1), 1.0, np.float32)  # white: whatever is dark is a caption
    first, other = (np.asarray(picture(x, UNIT, labels=np.array(labels))) for labels in ([7, 7, 7, 7], [7, 1, 7, 7]))
    dark = (first < 128).all(-1)
    for column in range(2):
        strip = dark[GAP : GAP + CAPTION, GAP + column * (64 + GAP) :][:, :64]
        across = np.flatnonzero(strip.any(0))
        assert len(across) and abs(across.mean() - 32) < 4
    assert not dark[GAP + CAPTION : GAP + CAPTION + 64].any() and not np.array_equal(first, other)


def test_scatter():
    x = np.array([[2.0, 0.0], [0.0, 1.0], [-2.0, -2.0], [np.nan, 0.0], [0.0, np.inf]])
    pixels = np.asarray(picture(x, UNIT, labels=np.array([0, 1, 9, 0, 0])))
    for across, up, colour in ((2, 0, (31, 90, 180)), (0, 1, (214, 96, 20)), (-2, -2, (214, 96, 20))):
        column, row = 256 * (1 + across / 2.1), 256 * (1 - up / 2.1)
        near = (pixels[round(row) - 4 : round(row) + 5, round(column) - 4 : round(column) + 5] == colour).all(-1)
        assert near[4, 4] and 9 <= near.sum() <= 32
    painted = (pixels != PAPER).any(-1).sum()
    assert painted <= 3 * 32  # what is not finite is left out


def test_scatter_of_nothing_finite_is_an_empty_sheet():
    assert (np.asarray(picture(np.full((2, 2), np.nan), UNIT)) == 255).all()


@pytest.mark.parametrize("shape", [(4, 8, 8, 2), (4, 3), (4, 8, 8), (4, 8)])
def test_other_shapes_have_no_picture(shape):
    with pytest.raises(ValueError, match=r"no picture for samples of shape .*expected \(H, W, 1\)"):
        picture(np.zeros(shape), UNIT)


@pytest.mark.parametrize("labels", [None, np.arange(6) % 3])
def test_files(tmp_path, labels):
    x, settings = samples(6).astype(np.float64), {"seed": 3, "solver": "ddim", "labels": [0, 1]}
    path = write(tmp_path / "a" / "b", x, labels=labels, value_range=UNIT, settings=settings, singles=False)
    assert path == tmp_path / "a" / "b" / "samples.png"
    with np.load(path.with_name("samples.npz")) as saved:
        assert set(saved) == ({"x"} if labels is None else {"x", "label"}) and saved["x"].dtype == np.float32
        np.testing.assert_array_equal(saved["x"], x)
        if labels is not None:
            assert saved["label"].dtype == np.int32
            np.testing.assert_array_equal(saved["label"], labels)
    assert json.loads(path.with_name("samples.json").read_text()) == settings
    np.testing.assert_array_equal(Image.open(path), picture(x, UNIT, labels=labels))
    assert len(list(path.parent.iterdir())) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_singles_are_the_samples_pixel_by_pixel(tmp_path, channels):
    x = samples(11, 4, 6, channels)
    write(tmp_path, x, labels=None, value_range=UNIT, settings={}, singles=True)
    names = sorted(path.name for path in tmp_path.glob("[0-9]*.png"))
    assert names == [f"{i:05d}.png" for i in range(11)]
    for i in (0, 10):
        found = np.asarray(Image.open(tmp_path / names[i])).reshape(4, 6, channels)
        np.testing.assert_array_equal(found, to_pixels(x[i], UNIT))


def test_without_a_picture_the_arrays_are_the_answer(tmp_path):
    path = write(tmp_path, np.zeros((3, 5)), labels=None, value_range=UNIT, settings={}, singles=True)
    assert path == tmp_path / "samples.npz" and path.exists() and not list(tmp_path.glob("*.png"))

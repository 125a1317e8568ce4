"""What every data set promises, and what each kind promises beside."""

import pickle

import numpy as np
import pytest
from PIL import Image

from diffjax.data import DATASETS, describe, digits, folder, npz, toy
from diffjax.data.source import from_arrays
from diffjax.data.toy import LAWS


def same(found, expected) -> bool:
    """The same arrays by name, dtype, shape and bytes."""
    return found.keys() == expected.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in ((found[k], expected[k]) for k in expected)
    )


def everything(source):
    return source.read(np.arange(source.size))


def test_every_row_is_tested(rows):
    assert {name for name, _ in rows.values()} == set(DATASETS)


def test_reads_what_it_declares(source):
    batch = everything(source)
    x = batch.pop("x")
    assert x.shape == (source.size, *source.shape)
    assert x.dtype == (np.uint8 if source.low is not None else np.float32) and np.isfinite(x).all()
    if source.low is not None:
        assert source.low <= x.min() < x.max() <= source.high
    if source.classes:
        label = batch.pop("label")
        assert label.dtype == np.int32 and set(label) == set(range(source.classes))
    assert not batch, "nothing but x, and label if there are classes"


def test_always_reads_the_same(make, row, source):
    assert same(everything(make(row)), everything(source))
    assert same(everything(pickle.loads(pickle.dumps(source))), everything(source))


def test_reads_any_indices_in_any_order(source):
    whole = everything(source)
    chosen = np.random.default_rng(1).integers(source.size, size=2 * source.size)  # some twice, some not
    assert same(source.read(chosen), {k: v[chosen] for k, v in whole.items()})


def test_what_is_read_can_be_written_to(source):
    batch = everything(source)
    before = batch["x"].copy()
    batch["x"][...] = 0
    assert (everything(source)["x"] == before).all()


def test_splits_differ(make, row):
    train, test = (make(row, split) for split in ("train", "test"))
    assert train.shape == test.shape and train.classes == test.classes
    assert not same(everything(train), everything(test))


def test_is_described_in_one_line(source):
    line = describe(source, (-1.0, 1.0))
    assert f"{source.size:,} {source.unit}" in line and "\n" not in line
    assert ("no labels" in line) == (source.classes == 0) and ("as they are" in line) == (source.low is None)


def test_digits_are_split_without_loss_or_overlap():
    from sklearn.datasets import load_digits

    train, test = (everything(digits(split)) for split in ("train", "test"))
    assert len(train["x"]) == 1497 and len(test["x"]) == 300
    x, label = load_digits(return_X_y=True)
    known = sorted((scan.astype(np.uint8).tobytes(), int(c)) for scan, c in zip(x, label, strict=True))
    found = [(x.tobytes(), int(c)) for part in (train, test) for x, c in zip(part["x"], part["label"], strict=True)]
    assert sorted(found) == known


@pytest.mark.parametrize("law", LAWS)
def test_toys_are_about_standardised(law):
    x = everything(toy("train", law, 10_000))["x"]
    assert np.abs(x.mean(axis=0)).max() < 0.1 and 0.8 < x.std() < 1.25


def test_npz_keeps_values_ranges_and_classes(tmp_path):
    x, label = np.linspace(-3, 7, 12, dtype=np.float32).reshape(4, 3), np.array([0, 2, 1, 1], np.int64)
    np.savez(tmp_path / "a.npz", x=x, label=label)
    path = str(tmp_path / "a.npz")
    plain = npz("train", path=path)
    assert (plain.classes, plain.low, plain.high, plain.unit) == (3, None, None, "examples")
    assert (everything(plain)["x"] == x).all() and (everything(plain)["label"] == label).all()
    assert npz("train", path=path, labels=False).classes == 0
    wide = npz("train", path=path, classes=5, low=-3.0, high=7.0)
    assert (wide.classes, wide.low, wide.high) == (5, -3.0, 7.0)


COLOUR = (10, 200, 30)


def picture(mode: str, size=(9, 6)) -> Image.Image:
    """A picture of one colour, in a mode that a file may have."""
    image = Image.new("RGB", size, COLOUR)
    return image.quantize(4) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize(
    "mode, suffix", [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("P", "gif"), ("RGB", "BMP"), ("CMYK", "tif")]
)
def test_folder_keeps_the_colour_of_any_mode_and_form(tmp_path, mode, suffix):
    for i, size in enumerate([(9, 6), (6, 9), (4, 4), (1, 3)]):
        picture(mode, size).save(tmp_path / f"{i}.{suffix}")
    x = everything(folder("train", path=str(tmp_path), size=4))["x"]
    assert x.shape == (4, 4, 4, 3) and (x == COLOUR).all()


def test_folder_converts_grey_to_colour_and_back(tmp_path):
    picture("L").save(tmp_path / "a.png")
    picture("RGB").save(tmp_path / "b.png")
    picture("LA").save(tmp_path / "c.png")
    grey = everything(folder("train", path=str(tmp_path), size=4, channels=1))["x"]
    colour = everything(folder("train", path=str(tmp_path), size=4))["x"]
    assert grey.shape == (3, 4, 4, 1) and (grey == picture("L").getpixel((0, 0))).all()
    assert (colour[0] == grey[0]).all() and (colour[1] == COLOUR).all()


@pytest.mark.parametrize("transparency", [0, b"\x00\x80\xff"])
def test_folder_ignores_transparency(tmp_path, transparency):
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    Image.fromarray(pixels).convert("P").save(tmp_path / "a.png", transparency=transparency)
    assert (everything(folder("train", path=str(tmp_path), size=4))["x"] == pixels[..., None]).all()


def test_folder_crops_the_centre_and_leaves_what_fits(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(4, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.swapaxes(0, 1)).save(tmp_path / "high.png")
    x = everything(folder("train", path=str(tmp_path), size=4))["x"]
    assert (x[1] == pixels[:, 3:7]).all() and (x[0] == pixels[:, 3:7].swapaxes(0, 1)).all()


def test_folder_takes_classes_from_the_outermost_folders(tmp_path):
    for name in ("train/dog/1.png", "train/cat/deep/2.jpg", "train/cat/3.PNG", "train/ape/notes.txt", "train/.x/4.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        picture("RGB").save(file) if file.suffix != ".txt" else file.write_text("no image")
    source = folder("train", path=str(tmp_path / "{split}"), size=4)
    assert source.size == 3 and source.classes == 3, "an empty class counts, a hidden folder does not"
    assert everything(source)["label"].tolist() == [1, 1, 2]


def test_folder_without_classes_or_labels(tmp_path):
    picture("RGB").save(tmp_path / "1.png")
    assert folder("train", path=str(tmp_path), size=4).classes == 0
    (tmp_path / "a").mkdir()
    picture("RGB").save(tmp_path / "a" / "2.png")
    source = folder("train", path=str(tmp_path), size=4, labels=False)
    assert source.classes == 0 and everything(source).keys() == {"x"}


def test_labels_of_any_integer_type_become_int32():
    for dtype in (np.uint8, np.int16, np.int64):
        source = from_arrays(np.zeros((3, 2)), np.array([0, 1, 2], dtype), classes=3)
        assert everything(source)["label"].dtype == np.int32


def test_records_are_what_they_were_made_of(make):
    assert same(everything(make("records")), everything(make("npz")))
    pixels, latents = everything(make("npz"))["x"], everything(make("latents"))["x"]
    np.testing.assert_allclose(latents, pixels[:, ::2, :2, :1] / np.float32(127.5) - 1, atol=1e-6)
    assert make("latents").unit == "latents" and make("records").unit == "images"

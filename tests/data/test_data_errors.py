"""What a user can get wrong with data, and the words that say so."""

import multiprocessing
import re
import shutil
from itertools import islice
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from diffjax.data import DATASETS, Batches, Source, digits, folder, npz, store, stream, toy
from diffjax.data.loader import read
from diffjax.data.source import from_arrays
from diffjax.errors import InputError


def refused(words: str):
    return pytest.raises(InputError, match=re.escape(words))


@pytest.fixture
def image(tmp_path):
    """A folder with one good image."""
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    return tmp_path


@pytest.fixture
def saved(tmp_path):
    """Save arrays, read them back."""

    def save_and_read(options=None, **arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return npz("train", path=str(tmp_path / "a.npz"), **(options or {}))

    return save_and_read


def test_names_that_do_not_exist():
    with refused("no split 'tset' of digits; did you mean 'test'? known: test, train"):
        digits("tset")
    with refused("no law 'moon' of toy; did you mean 'moons'?"):
        toy("train", "moon")


@pytest.mark.parametrize("size", [0, -3])
def test_sizes_below_one(tmp_path, size):
    with refused(f"the size of a toy set must be at least 1; got {size}"):
        toy("train", size=size)
    with refused(f"got size={size}, channels=3"):
        folder("train", path=str(tmp_path), size=size)


def test_channels_other_than_one_or_three(tmp_path):
    with refused("1 or 3 channels; got size=4, channels=4"):
        folder("train", path=str(tmp_path), size=4, channels=4)


@pytest.mark.parametrize("row, options", [("folder", {"size": 4}), ("npz", {})])
def test_paths(tmp_path, row, options):
    with refused(f"there is no {tmp_path}/nowhere; check data.path and data.split"):
        DATASETS[row]("train", path=f"{tmp_path}/nowhere", **options)
    with refused(f"there is no {tmp_path}/test"):
        DATASETS[row]("test", path=f"{tmp_path}/{{split}}", **options)
    with refused(f"data.path '{tmp_path}' is the same for every split; write {{split}} where it differs"):
        DATASETS[row]("test", path=str(tmp_path), **options)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with refused(f"there are no images in {tmp_path}; expected {tmp_path}/<class>/*.png"):
        folder("train", path=str(tmp_path), size=4)
    with refused(f"{tmp_path}/notes.txt is not a folder"):
        folder("train", path=str(tmp_path / "notes.txt"), size=4)


@pytest.mark.parametrize("kind", ["empty", "text", "cut off"])
def test_an_image_that_cannot_be_read_is_named(image, kind):
    if kind == "cut off":
        Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)).save(
            image / "bad.png"
        )
    whole = (image / "bad.png").read_bytes() if kind == "cut off" else b"no image" if kind == "text" else b""
    (image / "bad.png").write_bytes(whole[: max(len(whole) // 2, 8)])
    with refused(f"cannot read the image {image}/bad.png"):
        folder("train", path=str(image), size=4).read(np.array([0]))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_an_image_of_more_than_eight_bits_is_not_clipped(image, dtype):
    Image.fromarray(np.full((4, 4), 300, dtype)).save(image / "deep.tif")
    with refused(f"cannot read the image {image}/deep.tif: its pixels are of mode"):
        folder("train", path=str(image), size=4).read(np.array([0]))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_from_afar(image, workers):
    (image / "bad.png").write_bytes(b"no image")
    batches = Batches(folder("train", path=str(image), size=4), 1, 0)
    with refused(f"cannot read the image {image}/bad.png"):
        list(islice(stream(batches, 0, workers=workers), 2))


def test_other_failures_keep_their_traceback(image):
    source = folder("train", path=str(image), size=4)._replace(read=_fails)
    with pytest.raises(ZeroDivisionError):
        next(stream(Batches(source, 1, 0), 0))


def _fails(indices):
    raise ZeroDivisionError("a bug")


def test_npz_labels_must_fit(saved):
    x = np.zeros((3, 2), np.float32)
    with refused("labels must lie in 0..1; got 0..2"):
        saved(dict(classes=2), x=x, label=np.arange(3))
    with refused("got -1..1"):
        saved(x=x, label=np.arange(3) - 1)
    with refused("labels must be whole numbers; got dtype float64"):
        saved(x=x, label=np.zeros(3))
    for shape in ((2,), (3, 1), ()):
        with refused(f"there are 3 examples, and labels of shape {shape}"):
            saved(x=x, label=np.zeros(shape, int))


def test_npz_examples_must_be_numbers(saved):
    with refused("needs an array 'x' of shape [N, ...]; got none"):
        saved(y=np.zeros((3, 2)))
    with refused("needs an array 'x' of shape [N, ...]; got (3,)"):
        saved(x=np.zeros(3))
    with refused("the data set is empty, of shape (0, 2)"):
        saved(x=np.zeros((0, 2)))
    with refused("examples must be real numbers; got dtype complex128"):
        saved(x=np.zeros((3, 2), complex))
    with refused("Object arrays cannot be loaded"):
        saved(x=np.array([["a", None]]))


def test_npz_ranges_must_rise(saved):
    with refused("data.low and data.high go together; got 0.0 and None"):
        saved(dict(low=0.0), x=np.zeros((3, 2)))
    with refused("data.low must be less than data.high; got 1.0 and 1.0"):
        saved(dict(low=1.0, high=1.0), x=np.zeros((3, 2)))


@pytest.mark.parametrize("damage", ["empty", "text", "cut off", "one byte", "npy", "folder"])
def test_npz_that_cannot_be_read_is_named(tmp_path, damage):
    file = tmp_path / "a.npz"
    np.savez(file, x=np.ones((50, 4)))
    whole = file.read_bytes()
    middle = len(whole) // 2
    if damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "npy":
        np.save(tmp_path / "b.npy", np.zeros((3, 3)))
        shutil.move(tmp_path / "b.npy", file)
    else:
        one_byte = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        file.write_bytes({"empty": b"", "text": b"words", "cut off": whole[:middle], "one byte": one_byte}[damage])
    with refused(f"cannot read the arrays in {file}"):
        npz("train", path=str(file))


def test_batches_that_cannot_be():
    with refused("batch_size must be at least 1; got 0"):
        Batches(digits("train"), 0, 0)
    with refused("the seed must be at least 0; got -1"):
        Batches(digits("train"), 4, -1)
    with refused("data.flip mirrors images (H, W, C); the data is of shape (2,): set it to False"):
        Batches(toy("train"), 4, 0, flip=True)


@pytest.mark.parametrize("option", [{"workers": -1}, {"threads": 0}, {"prefetch": 0}])
def test_loaders_that_cannot_be(option):
    with refused("loader needs workers >= 0, threads >= 1, prefetch >= 1"):
        stream(Batches(digits("train"), 4, 0), 0, **option)


def test_arrays_given_by_hand_are_checked_too():
    with refused("labels must lie in 0..-1"):
        from_arrays(np.zeros((2, 2)), np.zeros(2, int))


class Flawed(NamedTuple):
    """A reader whose examples 3, 4 and 7 are each bad in a way of their own."""

    x: np.ndarray

    def __call__(self, indices):
        if 3 in indices:
            raise OSError("checksum mismatch in block 17\nand much more")
        x = self.x[indices]
        x[indices == 7] = np.nan
        return {"x": x[:, :1] if 4 in indices else x, "label": indices.astype(np.int32)}


def flawed():
    return Source(Flawed(np.random.default_rng(0).random((10, 2))), 10, (2,), 10)


@pytest.mark.parametrize(
    "bad, cause",
    [(3, "checksum mismatch in block 17; mend"), (4, "of shape (1,) and not (2,)"), (7, "values that are not finite")],
)
def test_a_corrupt_example_is_named(bad, cause):
    with refused(f"example {bad} of the data cannot be read: ") as caught:
        read(flawed(), np.asarray([0, bad, 1]))
    assert cause in str(caught.value) and "data.skip=True" in str(caught.value) and "\n" not in str(caught.value)


def test_a_corrupt_example_is_passed_over_where_that_is_allowed(capsys):
    batch = read(flawed(), np.asarray([9, 3, 7, 2]), skip=True)
    np.testing.assert_array_equal(batch["label"], [9, 5, 8, 2])
    np.testing.assert_array_equal(batch["x"], flawed().read.x[[9, 5, 8, 2]])
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" is passed over: ")[0] for line in said] == ["example 3", "example 4", "example 7"]
    batches = Batches(flawed(), 8, 0, skip=True)
    np.testing.assert_array_equal(batches(5)["label"], batches(5)["label"])


def test_data_without_a_good_example():
    nothing = Source(Flawed(np.full((10, 2), np.inf)), 10, (2,), 10)
    with refused("of the 100 examples from number 0 on can be read"):
        read(nothing, np.asarray([0]), skip=True)


@pytest.mark.slow
def test_a_worker_that_dies_is_told():
    batches = stream(Batches(toy("train"), 4, 0), 0, workers=1, prefetch=1)
    next(batches)
    for child in multiprocessing.active_children():
        if "grain" in child.name:
            child.kill()
    with refused("a process that reads data has died"):
        list(islice(batches, 100))


def test_records_that_are_damaged_name_the_example(tmp_path):
    store(toy("train", size=300), tmp_path / "all" / "train")
    file = tmp_path / "all" / "train" / "examples.array_record"
    data = bytearray(file.read_bytes())
    data[2000] ^= 1
    file.write_bytes(data)
    source = DATASETS["records"]("train", path=str(tmp_path / "all"))
    with pytest.raises(InputError, match=r"example \d+ of the data cannot be read"):
        read(source, np.arange(source.size))
    shutil.copytree(tmp_path / "all", tmp_path / "half")
    (tmp_path / "half" / "train" / "examples.array_record").write_bytes(data[:100])
    with refused("write them with python -m diffjax.cache"):
        DATASETS["records"]("train", path=str(tmp_path / "half"))


def test_records_are_written_whole_and_never_over_others(tmp_path):
    with refused("the encoder made 1 of 256 examples"):
        store(toy("train", size=300), tmp_path / "train", encode=lambda x: x[:1])
    assert not (tmp_path / "train").exists()
    store(toy("train", size=300), tmp_path / "train")
    with refused("is there already"):
        store(toy("train", size=300), tmp_path / "train")
    with refused("there is no"):
        DATASETS["records"]("test", path=str(tmp_path))

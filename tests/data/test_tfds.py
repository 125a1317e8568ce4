"""Prepared sets are read by name alone: without their code, without TensorFlow and without the network."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from diffjax.data import tfds
from diffjax.errors import InputError


@pytest.fixture
def read(root):
    def read(split="train", **options):
        return tfds(split, **({"dataset": "tiny_set", "data_dir": str(root / "sets")} | options))

    return read


def refused(words: str):
    return pytest.raises(InputError, match=re.escape(words))


def check(source, count: int) -> None:
    """The pictures are those of the tiny set: picture i is of colour 20 i and class i mod 3."""
    batch = source.read(np.arange(source.size))
    colour = batch["x"].reshape(source.size, -1)
    assert (colour == colour[:, :1]).all() and sorted(colour[:, 0]) == [20 * i for i in range(count)]
    if source.classes:
        assert (batch["label"] == colour[:, 0] // 20 % 3).all() and source.classes == 3


def test_reads_what_was_written(read):
    for split, count in (("train", 10), ("test", 4)):
        source = read(split)
        assert (source.size, source.shape, source.low, source.high) == (count, (6, 4, 3), 0.0, 255.0)
        check(source, count)


def test_resizes_on_demand(read):
    for options, shape in (
        ({"size": 3}, (3, 3, 3)),
        ({"size": 8, "channels": 1}, (8, 8, 1)),
        ({"size": 5, "image": "photo"}, (5, 5, 3)),
    ):
        source = read(**options)
        assert source.shape == shape == source.read(np.array([0]))["x"].shape[1:]
        check(source, 10)


def test_labels_are_optional(read):
    source = read(label="")
    assert source.classes == 0 and source.read(np.array([0])).keys() == {"x"}
    check(source, 10)


def test_names_and_splits_follow_the_library(read):
    assert read(dataset="tiny_set:1.0.0").size == 10
    sizes = {"train[:4]": 4, "train[50%:]": 5, "train+test": 14, "train[:2]+test[1:]": 5}
    assert {split: read(split).size for split in sizes} == sizes
    parts = [read(split).read(np.arange(5))["x"] for split in ("train[:50%]", "train[50%:]")]
    assert np.array_equal(np.concatenate(parts), read("train").read(np.arange(10))["x"])


def test_parquet_serves_too(tmp_path, prepare):
    prepare(tmp_path, "parquet")
    check(tfds("train", dataset="tiny_set", data_dir=str(tmp_path)), 10)


def test_needs_neither_tensorflow_nor_network_nor_code(root):
    script = f"""
    import socket, sys

    def offline(*_, **__):
        raise SystemExit("the network was asked for")

    socket.getaddrinfo = socket.socket.connect = offline
    import numpy as np
    from diffjax.data import tfds
    from diffjax.errors import InputError

    source = tfds("train", dataset="tiny_set", data_dir={str(root / "sets")!r})
    assert source.read(np.arange(10))["x"].shape == (10, 6, 4, 3)
    for dataset in ("mnist", "huggingface:mnist", "kaggle:mnist"):
        try:
            tfds("train", dataset=dataset, data_dir={str(root)!r})
        except InputError as error:
            print(error)
    assert not {{"tensorflow", "tiny_set"}} & {{name.split(".")[0] for name in sys.modules}}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [re.sub(r"'.*", "", line) for line in done.stdout.splitlines()] == [
        "the data set ",
        "there is no data set ",
        "there is no data set ",
    ]


def test_names_that_do_not_exist(read):
    with refused("no split 'trian' of tiny_set; did you mean 'train'? known: test, train"):
        read("trian")
    with refused("no split 'tset' of tiny_set; did you mean 'test'?"):
        read("train[:3]+tset")
    with refused("no feature 'img' of tiny_set; did you mean 'image'? known: image, label, photo"):
        read(image="img")
    with refused("no feature 'lable' of tiny_set; did you mean 'label'?"):
        read(label="lable")


def test_splits_that_hold_nothing(read):
    for split in ("train[:x]", "train[3:3]"):
        with refused(f"the split '{split}' of tiny_set cannot be read"):
            read(split)


def test_features_of_the_wrong_kind(read):
    with refused("the feature 'label' of tiny_set is not an image of 8 bits; set data.image"):
        read(image="label")
    with refused("the feature 'image' of tiny_set is not a class label; set data.label to one, or to ''"):
        read(label="image")
    with refused("the images of tiny_set are of many sizes; set data.size"):
        read(image="photo")
    with refused("got size=-1, channels=3"):
        read(size=-1)


def test_sets_that_are_not_there(read, tmp_path):
    with refused(f"there is no data set 'tiny_set' in {tmp_path}"):
        read(data_dir=str(tmp_path))
    with refused("a set of 'kaggle' would be downloaded"):
        read(dataset="kaggle:mnist")
    for dataset in ("tiny_sett", "tiny_set:2.0.0", "", "two words"):
        with refused(f"there is no data set '{dataset}' in "):
            read(dataset=dataset)


def test_a_set_of_the_library_that_is_not_prepared(read, tmp_path):
    with refused(f"the data set 'mnist' is not prepared in {tmp_path}/mnist/") as caught:
        read(dataset="mnist", data_dir=str(tmp_path))
    assert f"t.builder('mnist', data_dir='{tmp_path}', file_format='array_record')" in str(caught.value)
    assert not list(Path(tmp_path).iterdir()), "nothing is created, let alone downloaded"


def test_a_set_stored_as_tfrecord(tmp_path, root):
    shutil.copytree(root / "sets", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tiny_set" / "1.0.0" / "dataset_info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fileFormat": "tfrecord"}))
    with refused("the data set 'tiny_set' is stored as tfrecord, not to be read at random"):
        tfds("train", dataset="tiny_set", data_dir=str(tmp_path))

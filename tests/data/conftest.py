"""One small source for every row of DATASETS; the laws in this folder run over all of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax.data import DATASETS, store
from diffjax.data.toy import LAWS

HERE = Path(__file__).parent

# id -> (row of DATASETS, its options); {root} is where `root` below has put the files
ROWS = {
    "digits": ("digits", {}),
    **{law: ("toy", {"law": law, "size": 257}) for law in LAWS},
    "npz": ("npz", {"path": "{root}/{split}.npz"}),
    "npz without labels": ("npz", {"path": "{root}/{split}.npz", "labels": False}),
    "records": ("records", {"path": "{root}/records"}),
    "latents": ("records", {"path": "{root}/latents"}),
    "folder": ("folder", {"path": "{root}/{split}", "size": 8}),
    "grey folder": ("folder", {"path": "{root}/{split}", "size": 5, "channels": 1, "labels": False}),
    "tfds": ("tfds", {"dataset": "tiny_set", "data_dir": "{root}/sets"}),
    "resized tfds": ("tfds", {"dataset": "tiny_set", "data_dir": "{root}/sets", "image": "photo", "size": 5}),
}


@pytest.fixture(scope="session")
def prepare():
    """Write the tiny set to disk, in a process of its own: the code of the set stays unknown to the tests."""

    def run(data_dir: Path, file_format: str) -> None:
        code = (
            "from tiny_set.tiny_set_dataset_builder import Builder; "
            f"Builder(data_dir={str(data_dir)!r}, file_format={file_format!r}).download_and_prepare()"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE, capture_output=True)

    return run


@pytest.fixture(scope="session")
def root(tmp_path_factory, prepare) -> Path:
    """A folder with a file or folder for every split of every row that reads files."""
    path = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 23), ("test", 6)):
        pixels, label = rng.integers(256, size=(count, 10, 7, 3), dtype=np.uint8), np.arange(count) % 3
        np.savez(path / f"{split}.npz", x=pixels, label=label)
        stored = DATASETS["npz"](split, path=str(path / "{split}.npz"))
        store(stored, path / "records" / split, batch=10)
        store(stored, path / "latents" / split, batch=10, encode=lambda x: x[:, ::2, :2, :1])
        for i in range(count):
            file = path / split / "abc"[label[i]] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[i]).save(file)
    prepare(path / "sets", "array_record")
    return path


@pytest.fixture(scope="session")
def make(root):
    """(id of a row, split) -> its source, built anew."""

    def build(row: str, split: str = "train"):
        name, options = ROWS[row]
        filled = {k: v.replace("{root}", str(root)) if isinstance(v, str) else v for k, v in options.items()}
        return DATASETS[name](split, **filled)

    return build


@pytest.fixture(scope="session")
def rows() -> dict:
    return ROWS


@pytest.fixture(params=ROWS)
def row(request) -> str:
    return request.param


@pytest.fixture
def source(make, row):
    return make(row)

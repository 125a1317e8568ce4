"""A file or a folder of weights as named arrays, by its ending."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.errors import InputError

from . import flax, npz, pickles, safetensors

READERS = {
    ".safetensors.index.json": safetensors.read_sharded,
    ".safetensors": safetensors.read,
    ".npz": npz.read,
    ".msgpack": flax.read,
    ".pt": pickles.read,
    ".pth": pickles.read,
    ".bin": pickles.read,
    ".ckpt": pickles.read,
    ".pkl": pickles.read,
}


def read(path: str | Path) -> Mapping[str, np.ndarray]:
    """The arrays of a file; of a folder, those of the first kind in READERS of which it has exactly one.

    Raises InputError if there is no such file, or it is not what its ending says.
    """
    path = find(Path(path))
    (reader,) = [READERS[ending] for ending in READERS if path.name.endswith(ending)]
    try:
        return reader(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def find(path: Path) -> Path:
    """The file of weights at a path."""
    if path.is_dir():
        for ending in READERS:
            files = sorted(file for file in path.iterdir() if file.name.endswith(ending))
            if len(files) == 1:
                return files[0]
            if files:
                names = ", ".join(file.name for file in files)
                raise InputError(f"{path} holds several files of weights ({names}); name one of them")
    known = ", ".join(READERS)
    if not path.is_file():
        raise InputError(f"{path} is no file of weights and no folder with one; known endings: {known}")
    if not path.name.endswith(tuple(READERS)):
        raise InputError(f"{path.name} has no ending that says what it is; known: {known}")
    return path


def facts(path: str | Path) -> dict[str, Any]:
    """What a config.json beside the weights says, or nothing."""
    path = Path(path)
    beside = (path if path.is_dir() else path.parent) / "config.json"
    try:
        found = json.loads(beside.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {beside}: {error}; repair it or move it away") from None
    return found if isinstance(found, dict) else {}

"""NumPy's archives: a zip of .npy files.  Arrays of objects, which would be pickles, are refused."""

import zipfile
from pathlib import Path

import numpy as np

from diffjax.errors import InputError


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an archive.  Raises InputError, naming the array, for objects and dtypes numpy does not know."""
    arrays, name = {}, ""
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except (ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        where = f"'{name}' of it" if name else "it"
        raise InputError(
            f"{path} cannot be read: {where} is no plain array ({error}); save it without objects"
        ) from None
    for name, array in arrays.items():
        if array.dtype.kind == "V":
            raise InputError(
                f"'{name}' of {path} is of raw bytes, {array.dtype}: npz does not hold bfloat16; use safetensors"
            )
    return arrays

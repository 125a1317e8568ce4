"""Arrays in a file: `x` [N, *S] and, if there are classes, `label` [N]."""

import zipfile

import numpy as np

from diffjax.errors import InputError

from .source import Source, from_arrays
from .splits import located


def npz(
    split: str, *, path: str, classes: int = 0, labels: bool = True, low: float | None = None, high: float | None = None
) -> Source:
    """The arrays of a .npz file; a path with "{split}" in it names a file for each split.

    uint8 is stored in 0..255; for other types give `low` and `high`, or values are used as they are.  `classes`
    defaults to one more than the greatest label; without `labels` they are not read.  Raises InputError for what does
    not fit together.
    """
    file = located(path, split)
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:  # np.load leaves a bad file open
            x, label = arrays.get("x"), arrays.get("label") if labels else None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:  # TypeError: one array, a .npy file
        raise InputError(
            f"cannot read the arrays in {file}: {error}; expected a .npz file with x and maybe label"
        ) from error
    if x is None or x.ndim < 2:
        raise InputError(f"{file} needs an array 'x' of shape [N, ...]; got {'none' if x is None else x.shape}")
    if (low is None) != (high is None):
        raise InputError(f"data.low and data.high go together; got {low} and {high}")
    if low is not None and high is not None and not low < high:
        raise InputError(f"data.low must be less than data.high; got {low} and {high}")
    if low is None and x.dtype == np.uint8:
        low, high = 0.0, 255.0
    if label is not None and not classes and np.issubdtype(label.dtype, np.integer) and label.size:
        classes = max(int(label.max()), 0) + 1
    unit = "images" if x.ndim == 4 else "examples"
    return from_arrays(x, label, classes=classes, low=low, high=high, unit=unit)

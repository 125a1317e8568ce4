"""Arrays from a NumPy archive: `x` [N, *S], and `label` [N] where there are classes."""

import zipfile

import numpy as np
from jaxtyping import Int, Num

from diffjax.data.source import Source, from_arrays, locate
from diffjax.errors import InputError


def npz(
    split: str,
    *,
    path: str,
    low: float | None = None,
    high: float | None = None,
    classes: int | None = None,
) -> Source:
    """The arrays `x` (uint8 or floating) and, if present, `label` (integers from 0) of the archive at `path`.

    "{split}" in `path` stands for the split.  `low` and `high` declare the range of the values, by default 0..255 for
    uint8; floats without them are used as they are.  `classes` is by default the largest label + 1.  Arrays [N, H, W, C]
    are images.

    Raises:
      InputError: for a missing or damaged archive, and for arrays that do not fit the above.
    """
    path = locate(path, split)
    arrays = _load(path)
    if "x" not in arrays:
        raise InputError(f"'{path}' has the arrays {sorted(arrays)}, but no 'x'; save the examples as x")
    x, label = arrays["x"], arrays.get("label")
    x, low, high = _checked_values(path, x, (low, high))
    if label is not None:
        classes = _checked_classes(path, label, (len(x), classes))
    elif classes:
        raise InputError(
            f"'{path}' has no array 'label', but classes is {classes}; save the labels or leave classes out"
        )
    return from_arrays(x, label, classes or 0, low=low, high=high, unit="images" if x.ndim == 4 else "points")


def _load(path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in ("x", "label")} or dict.fromkeys(
                archive.files
            )
    except FileNotFoundError:
        raise InputError(f"there is no file '{path}'; set path to an .npz archive with the array x") from None
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"'{path}' is not an .npz archive of plain arrays ({type(error).__name__}); write it with numpy.savez"
        ) from error


def _checked_values(
    path: str, x: Num[np.ndarray, "n *S"], declared: tuple
) -> tuple[np.ndarray, float | None, float | None]:
    """`x` as uint8 or float32, and the range of its values."""
    low, high = declared
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"x in '{path}' has dtype {x.dtype}, not uint8 or floating; convert it before saving")
    if x.ndim == 0 or len(x) == 0:
        raise InputError(f"x in '{path}' has shape {x.shape}; it needs at least one example along its first axis")
    if (low is None) != (high is None) or (low is not None and not low < high):
        raise InputError(f"the value range of '{path}' is low={low}, high={high}; set both, low below high, or neither")
    if x.dtype == np.uint8:
        low, high = (0, 255) if low is None else (low, high)
    smallest, largest = float(x.min(initial=np.inf)), float(x.max(initial=-np.inf))
    if not np.isfinite(smallest + largest):
        raise InputError(f"x in '{path}' is empty or has values that are not finite; remove those examples")
    if low is not None and not low <= smallest <= largest <= high:
        raise InputError(
            f"x in '{path}' runs from {smallest:g} to {largest:g}, outside {low:g}..{high:g}; correct low, high"
        )
    return (x if x.dtype == np.uint8 else x.astype(np.float32)), low, high


def _checked_classes(path: str, label: Int[np.ndarray, "n"], expected: tuple[int, int | None]) -> int:
    """The number of classes of `label`."""
    size, classes = expected
    if not np.issubdtype(label.dtype, np.integer):
        raise InputError(f"label in '{path}' has dtype {label.dtype}, not an integer one; save class indices from 0")
    if label.shape != (size,):
        raise InputError(
            f"label in '{path}' has shape {label.shape}, but x has {size} examples; save one label for each"
        )
    smallest, largest = int(label.min()), int(label.max())
    if smallest < 0 or (classes is not None and largest >= classes):
        bound = "0 and up" if classes is None else f"0 to {classes - 1}"
        raise InputError(
            f"label in '{path}' runs from {smallest} to {largest}; expected {bound}, so correct it or classes"
        )
    return largest + 1 if classes is None else classes

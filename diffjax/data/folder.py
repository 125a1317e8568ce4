"""Image files in class folders, PATH/<class>/<any>.png, or directly in PATH when there are no classes.

Only names are listed at the start; files are opened when they are read, so a folder may be larger than memory.
"""

import functools
import os

import numpy as np
from jaxtyping import Int

from diffjax.data.pictures import MODES, decode, fit
from diffjax.data.source import Examples, Source, locate
from diffjax.errors import InputError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def folder(split: str, *, path: str, size: int, channels: int = 3) -> Source:
    """Images under `path`, cut to the centre square and resized to [size, size, channels] uint8.

    "{split}" in `path` stands for the split.  The label is the place of the class folder in alphabetical order.

    Raises:
      InputError: for a folder that is missing, empty, or has images both in and beside class folders; when reading, for a
        file that is no image.
    """
    path = os.path.expanduser(locate(path, split))
    if channels not in MODES or size < 1:
        raise InputError(f"folder got size {size} and channels {channels}; set size to 1 or more, channels to 1 or 3")
    if not os.path.isdir(path):
        raise InputError(f"there is no folder '{path}'; set path to a folder of images or of class folders")
    files, names = _images(path), _folders(path)
    classed = [_images(os.path.join(path, name)) for name in names]
    if files and any(classed):
        raise InputError(f"'{path}' has images both in class folders and beside them; move them all to either place")
    if not files and not any(classed):
        raise InputError(f"'{path}' has no images in it or in its class folders; known endings: {', '.join(SUFFIXES)}")
    if files:
        names, classed = [], [files]
    for name, members in zip(names, classed, strict=False):
        if not members:
            raise InputError(f"the class folder '{os.path.join(path, name)}' has no images; fill it or remove it")
    label = np.repeat(np.arange(len(classed), dtype=np.int32), [len(members) for members in classed])
    files = [file for members in classed for file in members]
    return Source(
        read=functools.partial(_read, files, label if names else None, (size, channels)),
        size=len(files),
        shape=(size, size, channels),
        classes=len(names),
        low=0,
        high=255,
        unit="images",
        in_memory=False,
        names=tuple(names),
    )


def _read(files: list[str], label: np.ndarray | None, form: tuple[int, int], indices: Int[np.ndarray, "n"]) -> Examples:
    size, channels = form
    x = np.empty((len(indices), size, size, channels), np.uint8)
    for row, index in enumerate(indices):
        x[row] = fit(decode(files[index], channels, files[index]), size)
    return {"x": x} if label is None else {"x": x, "label": label[indices]}


def _folders(path: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))


def _images(path: str) -> list[str]:
    names = (entry.name for entry in os.scandir(path) if not entry.name.startswith("."))
    return [os.path.join(path, name) for name in sorted(names) if name.lower().endswith(SUFFIXES)]

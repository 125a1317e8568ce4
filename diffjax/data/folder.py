"""Images in folders: path/<class>/<any name>.png, or all in one folder without classes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from diffjax.errors import InputError

from . import pictures
from .source import Batch, Source
from .splits import located

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Files(NamedTuple):
    """Reading images one by one, when they are asked for."""

    paths: tuple[str, ...]
    label: np.ndarray | None
    size: int
    channels: int

    def __call__(self, indices: Int[np.ndarray, "n"]) -> Batch:
        x = np.stack([pictures.read(self.paths[i], size=self.size, channels=self.channels) for i in indices])
        return {"x": x} if self.label is None else {"x": x, "label": self.label[indices]}


def folder(split: str, *, path: str, size: int, channels: int = 3, labels: bool = True) -> Source:
    """Every image under a folder, resized and cropped to size x size; its class is the name of the folder it lies in.

    A path with "{split}" in it names a folder for each split.  Classes are numbered in the order of their names, so
    every split has the same ones, if need be empty.
    """
    if size < 1 or channels not in (1, 3):
        raise InputError(f"images need a size of at least 1 and 1 or 3 channels; got size={size}, channels={channels}")
    root = located(path, split)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; data 'folder' expects one folder for each class in it")
    classes = sorted(child.name for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    files = [(file, number) for number, name in enumerate(classes) for file in _images(root / name)]
    if not classes:
        files = [(file, 0) for file in _images(root)]
    if not files:
        raise InputError(f"there are no images in {root}; expected {root}/<class>/*.png (or {', '.join(SUFFIXES[1:])})")
    label = np.asarray([number for _, number in files], np.int32) if labels and classes else None
    read = Files(tuple(str(file) for file, _ in files), label, size, channels)
    shape, count = (size, size, channels), 0 if label is None else len(classes)
    return Source(read, len(files), shape, count, low=0.0, high=255.0, unit="images", in_memory=False)


def _images(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)

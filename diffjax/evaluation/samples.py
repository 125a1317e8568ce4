"""Samples as files.

samples.npz     x float32 [N, *S] in the data range, and label int32 [N] if there are labels
samples.json    the exact settings
samples.png     one picture of them all
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .pictures import picture, tile, to_pixels


def write(
    folder: Path,
    x: np.ndarray,
    *,
    labels: np.ndarray | None,
    value_range: tuple[float, float],
    settings: dict[str, Any],
    singles: bool,
) -> Path:
    """Write everything into `folder` and return the path of the picture, or of the arrays where no picture can be made.

    `singles` also writes every sample as a PNG of its own, 00000.png and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"x": np.asarray(x, np.float32)}
    if labels is not None:
        arrays["label"] = np.asarray(labels, np.int32)
    np.savez(folder / "samples.npz", **arrays)
    (folder / "samples.json").write_text(json.dumps(settings, indent=2) + "\n")
    try:
        sheet = picture(x, value_range, labels=labels)
    except ValueError:
        return folder / "samples.npz"
    sheet.save(folder / "samples.png")
    if singles and x.ndim == 4:
        for i, pixels in enumerate(to_pixels(x, value_range)):
            tile(pixels).save(folder / f"{i:05d}.png")
    return folder / "samples.png"

"""Samples as pictures: a captioned grid for images, a scatter for points in the plane."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

INK, PAPER = (32, 32, 32), (255, 255, 255)
CAPTION, TILE, GAP = 13, 64, 4


def to_pixels(x: Float[np.ndarray, "... H W C"], value_range: tuple[float, float]) -> UInt8[np.ndarray, "... H W C"]:
    """Values in the data range -> 0..255, clipped and rounded."""
    low, high = value_range
    return np.rint(np.clip((np.asarray(x, np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def picture(x: np.ndarray, value_range: tuple[float, float], *, labels: np.ndarray | None = None) -> Image.Image:
    """[N, H, W, C] with C 1 or 3 -> a grid; [N, 2] -> a scatter.  Raises ValueError for other shapes."""
    if x.ndim == 4 and x.shape[-1] in (1, 3):
        return _grid(to_pixels(x, value_range), None if labels is None else [str(i) for i in labels])
    if x.ndim == 2 and x.shape[1] == 2:
        return _scatter(x, labels)
    raise ValueError(f"no picture for samples of shape {x.shape[1:]}; expected (H, W, 1), (H, W, 3) or (2,)")


def save_picture(path: Path, x: np.ndarray, value_range: tuple[float, float], **options: Any) -> Path | None:
    """Write the picture of samples, if there can be one."""
    try:
        sheet = picture(x, value_range, **options)
    except ValueError:
        return None
    sheet.save(path)
    return path


def strips(
    rows: Float[np.ndarray, "N n H W C"], value_range: tuple[float, float], *, captions: Sequence[str] | None = None
) -> Image.Image:
    """Each row of samples from left to right: what becomes of noise, what lies between two samples, neighbours.

    Raises ValueError for what is no picture.
    """
    if rows.ndim != 5 or rows.shape[-1] not in (1, 3):
        raise ValueError(f"no strips of samples of shape {rows.shape[2:]}; expected (H, W, 1) or (H, W, 3)")
    flat, count = rows.reshape(-1, *rows.shape[2:]), rows.shape[1]
    told = None if captions is None else [c if i == 0 else "" for c in captions for i in range(count)]
    return _grid(to_pixels(flat, value_range), told, columns=count)


def tile(pixels: UInt8[np.ndarray, "H W C"], scale: int = 1) -> Image.Image:
    """One sample as an image, every pixel a square of `scale`."""
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    return Image.fromarray(squeezed).resize(
        (pixels.shape[1] * scale, pixels.shape[0] * scale), Image.Resampling.NEAREST
    )


def _grid(pixels: np.ndarray, captions: Sequence[str] | None, *, columns: int | None = None) -> Image.Image:
    scale = max(1, TILE // pixels.shape[2])
    height, width = pixels.shape[1] * scale, pixels.shape[2] * scale
    columns = columns or _columns(len(pixels), captions)
    top = CAPTION if captions else 0
    rows = math.ceil(len(pixels) / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + top + GAP) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, sample in enumerate(pixels):
        left, upper = GAP + i % columns * (width + GAP), GAP + i // columns * (height + top + GAP)
        if captions:
            pen.text((left + width / 2, upper), captions[i], fill=INK, anchor="ma")
        sheet.paste(tile(sample, scale), (left, upper + top))
    return sheet


def _columns(n: int, captions: Sequence[str] | None) -> int:
    """A column a class where labels cycle through a handful of classes; otherwise near a square."""
    captions = captions or ()
    classes = len(set(captions))
    cycle = 4 <= classes <= 20 and all(c == captions[i % classes] for i, c in enumerate(captions))
    return classes if cycle else math.ceil(math.sqrt(n))


def _scatter(x: np.ndarray, labels: np.ndarray | None, *, side: int = 512) -> Image.Image:
    colours = [
        (31, 90, 180),
        (214, 96, 20),
        (40, 140, 60),
        (180, 40, 60),
        (120, 80, 170),
        (120, 90, 80),
        (200, 90, 170),
        (90, 90, 90),
    ]
    finite = x[np.isfinite(x).all(1)]
    reach = 1.05 * max(float(np.abs(finite).max(initial=0)), 1e-6)
    sheet = Image.new("RGB", (side, side), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (across, up) in enumerate(x):
        if np.isfinite([across, up]).all():
            centre = (side / 2 * (1 + across / reach), side / 2 * (1 - up / reach))
            pen.circle(centre, 2, fill=colours[0 if labels is None else int(labels[i]) % len(colours)])
    return sheet

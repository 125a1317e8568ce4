"""From encoded pictures to arrays of one size."""

from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffjax.errors import InputError


def read(file: str | Path | IO[bytes], *, size: int, channels: int, name: str = "") -> UInt8[np.ndarray, "size size C"]:
    """A picture as uint8, its shorter side resized to `size` with antialiasing, then cropped to its centre.

    Transparency is ignored.  Raises InputError, naming the file, if it cannot be read or is of more than 8 bits.
    """
    try:
        with Image.open(file) as opened:
            if opened.mode.startswith(("I", "F")):  # Pillow would clip them, to white for the most part
                raise ValueError(f"its pixels are of mode {opened.mode}, not of 8 bits")
            # Pillow warns if a palette loses its transparency in one step
            image = opened.convert("RGBA") if "transparency" in opened.info else opened
            return fit(image.convert("RGB" if channels == 3 else "L"), size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the image {name or file}: {error}; repair or remove it") from error


def fit(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size C"]:
    """Resize the shorter side to `size`, crop the centre."""
    width, height = image.size
    scale = size / min(width, height)
    resized = image.resize(
        (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)), np.uint8)
    return pixels.reshape(size, size, -1)

"""Images of any size and mode become uint8 arrays [size, size, channels].

The centre square (side = the shorter side) is cut out and resized in one call; the filter widens when it shrinks an image,
so that nothing aliases.  Transparent pixels are laid over white, because the colour stored under them is arbitrary.
"""

from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from diffjax.errors import InputError

MODES = {1: "L", 3: "RGB"}


def decode(file: str | BinaryIO, channels: int, name: str) -> UInt8[np.ndarray, "h w c"]:
    """The picture in a file, upright, with 1 (grey) or 3 (RGB) channels.

    Raises:
      InputError: for bytes that are no image, naming it by `name`.
    """
    try:
        with Image.open(file) as image:
            flat = _over_white(ImageOps.exif_transpose(_eight_bits(image)))
            array = np.asarray(flat.convert(MODES[channels]))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        cause = str(error) if isinstance(error, InputError) else f"{type(error).__name__}"
        raise InputError(f"cannot read the image '{name}' ({cause}); repair or remove it") from error
    return array[..., None] if channels == 1 else array


def fit(image: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "size size c"]:
    """The centre square of an image, resized to `size` x `size` pixels; one that fits already is returned unchanged."""
    height, width, channels = image.shape
    if (height, width) == (size, size):
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box)).reshape(size, size, channels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit greys when it converts them; keep their upper byte instead."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError("its pixels are 32-bit numbers, not 8 or 16-bit ones")
    return image


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)

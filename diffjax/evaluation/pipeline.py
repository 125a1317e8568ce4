"""From data to what a network of features reads: one pipeline, of which every choice is a field.

    values of the data's range -> [0, 1], clipped -> 8 bits or not -> channels -> resized, clipped -> (x - mean) / std

A resize is a row of RESIZES.  They differ by more than it seems: what is called bilinear has its points at the centres
of pixels or at their corners, and reads four of them or, antialiased, all that a new pixel covers (Parmar et al. 2022).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def bilinear(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Of the four nearest pixels, by centres: PyTorch's interpolate, and pytorch-fid."""
    return jax.image.resize(x, _shape(x, size), "linear", antialias=False)


def bilinear_antialiased(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Of all that a new pixel covers: Pillow's."""
    return jax.image.resize(x, _shape(x, size), "linear", antialias=True)


def bilinear_corners(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Of the four nearest pixels, by upper left corners: TensorFlow 1, in which the FID was first computed."""
    scale = jnp.asarray([new / old for new, old in zip(size, x.shape[1:3], strict=True)], jnp.float32)
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), "edge")  # what lies behind the last centre is not nothing
    return jax.image.scale_and_translate(
        x, _shape(x, size), (1, 2), scale, 0.5 * (1 - scale), "linear", antialias=False
    )


def bicubic_antialiased(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Keys' cubic (a = -1/2) over all that a new pixel covers: Pillow's, without its rounding, and clean-fid."""
    return jax.image.resize(x, _shape(x, size), "cubic", antialias=True)


RESIZES = {
    "bilinear": bilinear,
    "bilinear_antialiased": bilinear_antialiased,
    "bilinear_corners": bilinear_corners,
    "bicubic_antialiased": bicubic_antialiased,
}
ROUNDINGS = {"round": lambda x: jnp.rint(255 * x) / 255, "none": lambda x: x}


class Pipeline(NamedTuple):
    """What is done to pictures [B, H, W, C]; mean and std are of values in [0, 1], one number for each channel."""

    range: tuple[float, float]
    rounding: str
    channels: int
    size: tuple[int, int]
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def prepare(pipeline: Pipeline, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
    """What the network reads."""
    low, high = pipeline.range
    x = ROUNDINGS[pipeline.rounding](jnp.clip((x - low) / (high - low), 0, 1))
    x = jnp.broadcast_to(x, (*x.shape[:-1], pipeline.channels))
    x = x if x.shape[1:3] == pipeline.size else jnp.clip(RESIZES[pipeline.resize](x, pipeline.size), 0, 1)
    mean, std = (jnp.asarray(one, x.dtype)[None, None, None] for one in (pipeline.mean, pipeline.std))
    return (x - mean) / std


def checked(pipeline: Pipeline, shape: tuple[int, ...]) -> Pipeline:
    """The pipeline itself.  Raises ValueError unless data of this shape can go through it."""
    if len(shape) != 3 or shape[-1] not in (1, pipeline.channels):
        raise ValueError(
            f"data of shape {shape} are no pictures (H, W, 1) or (H, W, {pipeline.channels}); use features 'pixels'"
        )
    for kind, name, known in (("resize", pipeline.resize, RESIZES), ("rounding", pipeline.rounding, ROUNDINGS)):
        if name not in known:
            raise ValueError(f"no {kind} '{name}'; known: {', '.join(known)}")
    if min(pipeline.size) < 1:
        raise ValueError(f"pictures must be resized to at least 1 x 1; got {pipeline.size}")
    return pipeline


def _shape(x: Array, size: tuple[int, int]) -> tuple[int, ...]:
    return (x.shape[0], *size, x.shape[-1])

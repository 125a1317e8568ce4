"""A small convolutional classifier, whose last but one layer holds the features in which samples can be judged.

[conv 3 x 3, norm, silu] at every size, half the size and more channels each time, until no side is over 4
features = silu(linear(all positions)),  logits = linear(features)
"""

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from .convolution import Convolution
from .group_norm import GroupNorm

FINAL = 4  # the longest side that is read at once


class Classifier(nnx.Module):
    """x [B, H, W, C] -> (features [B, F], logits [B, K])."""

    def __init__(self, shape: tuple[int, int, int], classes: int, *, width: int, features: int, rngs: nnx.Rngs):
        *space, channels = shape
        convs, norms = [], []
        while not convs or max(space) > FINAL:
            stride = 2 if convs else 1
            space, outputs = [-(-side // stride) for side in space], min(width * 2 ** len(convs), 8 * width)
            convs.append(Convolution(channels, outputs, (3, 3), stride, rngs=rngs))
            norms.append(GroupNorm(outputs, rngs=rngs))
            channels = outputs
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)
        self.features = nnx.Linear(int(np.prod(space)) * channels, features, rngs=rngs)
        self.head = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> tuple[Float[Array, "B F"], Float[Array, "B K"]]:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x), silu=True)
        features = jax.nn.silu(self.features(x.reshape(len(x), -1)))
        return features, self.head(features)


def classifier(
    shape: tuple[int, int, int], classes: int, *, rngs: nnx.Rngs, width: int = 16, features: int = 64
) -> Classifier:
    """A classifier of pictures (H, W, C) of one size.  Raises ValueError for what cannot be."""
    if len(shape) != 3 or min(*shape, classes, width, features) < 1:
        raise ValueError(f"a classifier needs pictures (H, W, C), a class, width and features; got {shape}, {classes}")
    return Classifier(shape, classes, width=width, features=features, rngs=rngs)

"""What a network is told beside x, as one vector per row: the noise level, the class, a vector.

The level is spread over sines and cosines of many frequencies f_i (a row of FEATURES), and a small MLP makes of them
what the blocks read.  A class is a row of a table with one more row than there are classes: the last, the null class,
means "unconditional".  A continuous vector enters through one linear layer without bias; none is a vector of zeros.
"""

from collections.abc import Sequence
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from .conditions import label_of, parts


def geometric(level: Float[Array, "B"], width: int, *, highest: float = 1000.0) -> Float[Array, "B width"]:
    """Frequencies from 1/10 to `highest`, geometric: for levels of any kind that lie near [-1, 1]."""
    return _waves(level, np.geomspace(0.1, highest, width // 2))


def sinusoidal(
    level: Float[Array, "B"], width: int, *, scale: float = 1000.0, offset: float = 0.0, cosine_first: bool = False,
    last: bool = False,
) -> Float[Array, "B width"]:  # fmt: skip
    """Frequencies 10000^(-i / n) of the step `scale` level + `offset` (Vaswani et al. 2017; Ho et al. 2020).

    n is half the width or, with `last`, one less, which makes the last frequency 1 / 10000.  A network that was trained
    on steps 0..999 of a discrete schedule reads scale = 1000, offset = -1.
    """
    half = width // 2
    frequencies = 10000.0 ** -(np.arange(half) / max(half - last, 1))
    return _waves(scale * level.astype(jnp.float32) + offset, frequencies, cosine_first=cosine_first)


def normal(level: Float[Array, "B"], width: int, *, std: float = 16.0) -> Float[Array, "B width"]:
    """Frequencies 2 pi `std` z, z the quantiles of N(0, 1): none is drawn (Tancik et al. 2020; Song et al. 2021)."""
    half = width // 2
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / half) for i in range(half)])
    return _waves(level, 2 * np.pi * std * quantiles)


def listed(level: Float[Array, "B"], width: int, *, frequencies: Sequence[float]) -> Float[Array, "B width"]:
    """Frequencies 2 pi f for every f that is given: those that somebody drew.  Raises ValueError for another number."""
    if len(frequencies) != width // 2:
        raise ValueError(f"features 'listed' of width {width} need {width // 2} frequencies; got {len(frequencies)}")
    return _waves(level, 2 * np.pi * np.asarray(frequencies))


FEATURES = {"geometric": geometric, "sinusoidal": sinusoidal, "normal": normal, "listed": listed}


class Embedding(nnx.Module):
    """(level [B], cond) -> [B, width], past the last activation.

    cond is what `conditions.parts` reads; label `classes`, or no label at all, is the null class.  `channels` is the
    width of the features, and of all that is added to them if `early` (Song et al. 2021); otherwise class and vector
    are added to what the MLP makes of the level.
    """

    def __init__(
        self, width: int, classes: int, *, vector: int = 0, channels: int = 0, features: str = "geometric",
        options: dict | None = None, early: bool = False, dtype, rngs: nnx.Rngs,
    ):  # fmt: skip
        channels = channels or width
        if min(width, channels) < 2 or channels % 2:
            raise ValueError(f"the embedding of the level needs an even width of at least 2; got {channels}")
        if features not in FEATURES:
            raise ValueError(f"no features '{features}' of the level; known: {', '.join(FEATURES)}")
        self.classes, self.vector, self.early = classes, vector, early
        self.channels, self.features, self.options, self.dtype = channels, features, options or {}, dtype
        joined = channels if early else width
        self.hidden = nnx.Linear(channels, width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        if classes:
            self.label = nnx.Embed(
                classes + 1, joined, embedding_init=nnx.initializers.normal(1.0), dtype=dtype, rngs=rngs
            )
        if vector:
            self.project = nnx.Linear(vector, joined, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, level: Float[Array, "B"], cond) -> Float[Array, "B width"]:
        h = FEATURES[self.features](level, self.channels, **self.options).astype(self.dtype)
        h = self._joined(h, cond) if self.early else h
        h = self.out(jax.nn.silu(self.hidden(h)))
        return jax.nn.silu(h if self.early else self._joined(h, cond))

    def of_label(self, cond, rows: int) -> Float[Array, "B joined"]:
        """The row of each label, or of the null class."""
        return self.label(label_of(cond, rows, null=self.classes))

    def _joined(self, h, cond):
        given = parts(cond)
        if self.classes:
            h = h + self.of_label(cond, len(h))
        if self.vector and "vector" in given:
            h = h + self.project(jnp.asarray(given["vector"], self.dtype))
        return h


def _waves(x: Float[Array, "B"], frequencies: np.ndarray, *, cosine_first: bool = False) -> Float[Array, "B twoN"]:
    angles = x.astype(jnp.float32)[:, None] * jnp.asarray(frequencies, jnp.float32)[None, :]
    waves = [jnp.sin(angles), jnp.cos(angles)]
    return jnp.concatenate(waves[::-1] if cosine_first else waves, axis=-1)

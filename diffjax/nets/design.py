"""The choices that tell one convolutional network from another; a row of NETS is a set of them.

Sizes are counted in positions of the first axis of space, widths in channels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Design(NamedTuple):
    """The options of the rows in unet.py; the defaults are those of row `unet`."""

    # Sizes.  Level i works at size / 2^i with width * multipliers[i] channels.
    width: int = 64
    multipliers: tuple = (1, 2, 2)
    blocks: int = 2  # of every level on the way down; one more on the way up
    dropout: float = 0.0
    outputs: int = 1  # answers, one after another along the channels: 2 with a learned variance
    # Conditions: the channels of a vector, of a sequence read by cross-attention, of an image laid over x; 0 is none.
    vector: int = 0
    tokens: int = 0
    image: int = 0
    # The level, and where it enters.
    features: str = "geometric"  # a row of embeddings.FEATURES
    frequencies: Mapping[str, Any] = {}  # its options
    feature_width: int = 4  # of the features, times `width`
    embedding_width: int = 4  # of what the blocks read, times `width`
    early: bool = False  # class and vector join the features, and not what the MLP makes of them
    entry: str = "film"  # a row of blocks.ENTRIES
    # Norms: at most this many groups of at least this many channels.
    groups: int = 32
    group_width: int = 4
    eps: float = 1e-5
    # Attention: at which sizes, after which blocks, with how many heads or, at 0, as many as are `head_width` wide.
    attention: tuple = (16,)
    middle: str = "both"  # "both" blocks, if a level attends; "first", always
    up: str = "all"  # blocks of a level that attends, or the "last"
    heads: int = 0
    head_width: int = 64
    # Between levels.
    resample: str = "conv"  # a row of unet.RESAMPLE
    padding: tuple = (0, 1)  # of a strided convolution: (0, 1) is TensorFlow's "SAME", (1, 1) that of PyTorch's models
    taps: tuple = (1, 1)  # of the filter in blocks that resample and in pyramids
    project: bool = False  # a block that resamples has a 1 x 1 convolution beside it
    encoder: str = "plain"  # a row of unet.ENCODERS
    decoder: str = "plain"  # a row of unet.DECODERS
    residual_scale: float = 1.0  # of every sum of a block and its input
    # Arithmetic; parameters stay float32.  remat: a row of blocks.REMAT.
    dtype: Any = "float32"
    remat: str = "none"

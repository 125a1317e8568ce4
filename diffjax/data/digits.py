"""Handwritten digits that come with scikit-learn: 1797 grey images of 8 x 8, small enough to train on in a minute.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998.
"""

import numpy as np

from diffjax.data.source import Source, from_arrays
from diffjax.errors import unknown

HELD_OUT = 300


def digits(split: str) -> Source:
    """Handwritten digits, uint8 0..16 [8, 8, 1], 10 classes: 1497 in "train", a fixed random 300 in "test"."""
    from sklearn.datasets import load_digits  # heavy

    if split not in ("train", "test"):
        raise unknown("split of digits", split, ("train", "test"))
    bunch = load_digits()
    # Neighbours in the file are by the same writer, so the held-out images are drawn from all over it.
    shuffled = np.random.Generator(np.random.Philox(key=0)).permutation(len(bunch.target))
    rows = shuffled[:HELD_OUT] if split == "test" else shuffled[HELD_OUT:]
    x = bunch.images[rows].astype(np.uint8)[..., None]
    return from_arrays(x, bunch.target[rows], 10, low=0, high=16, unit="images")

"""Handwritten digits: the 1,797 scans, 8 x 8, that scikit-learn ships (Alpaydin & Kaynak 1998)."""

import numpy as np

from diffjax.errors import unknown

from .source import Source, from_arrays

HELD_OUT = 300


def digits(split: str) -> Source:
    """1,497 scans to train on ("train"), and the same 300 always held out ("test"); values 0..16, ten classes."""
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise unknown("split of digits", split, ("train", "test"))
    x, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    chosen = order[:HELD_OUT] if split == "test" else order[HELD_OUT:]
    scans = x[chosen].astype(np.uint8).reshape(-1, 8, 8, 1)
    return from_arrays(scans, label[chosen].astype(np.int32), classes=10, low=0.0, high=16.0, unit="images")

"""What a network can be told beside x and the level; each kind may be absent, which means "unconditional".

    label       int [B]            a class
    vector      float [B, K]       anything continuous
    tokens      float [B, L, K]    a sequence, as a text encoder makes it
    mask        bool [B, L]        which of the tokens are there; all, if it is absent
    image       [B, *S', C']       of x's space: a picture to enlarge, or one with a hole and the hole's mask

A condition is a dict of these, labels alone, or None.
"""

from collections.abc import Mapping
from typing import Any

KINDS = ("label", "vector", "tokens", "mask", "image")


def parts(cond: Any) -> dict[str, Any]:
    """A condition as a dict, labels alone included.  Raises ValueError for a kind that there is not."""
    if cond is None:
        return {}
    if not isinstance(cond, Mapping):
        return {"label": cond}
    for kind in cond:
        if kind not in KINDS:
            raise ValueError(f"no condition '{kind}'; known: {', '.join(KINDS)}")
    return {kind: value for kind, value in cond.items() if value is not None}

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

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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


def label_of(cond: Any, rows: int, *, null: int) -> Int[Array, "B"]:
    """The label of every row; where none is given, the null class."""
    return jnp.asarray(parts(cond).get("label", jnp.full(rows, null)))


def tokens_of(cond: Any, dtype: Any) -> tuple[Float[Array, "B L K"], Bool[Array, "B L"]] | None:
    """The tokens and which of them are there, or None if there are none."""
    given = parts(cond)
    if "tokens" not in given:
        return None
    tokens = jnp.asarray(given["tokens"], dtype)
    return tokens, jnp.asarray(given.get("mask", jnp.ones(tokens.shape[:2])), bool)


def with_image(x: Float[Array, "B *S C"], cond: Any, channels: int) -> Float[Array, "B *S more"]:
    """x with the condition's image as more channels, zeros if there is none.  Raises ValueError for another size."""
    if not channels:
        return x
    there = (*x.shape[:-1], channels)
    image = jnp.asarray(parts(cond).get("image", jnp.zeros(there)), x.dtype)
    if image.shape != there:
        raise ValueError(f"the image of the condition must be {list(there)}, like x; got {list(image.shape)}")
    return jnp.concatenate([x, image], axis=-1)

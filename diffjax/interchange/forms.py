"""How the same numbers are arranged here and elsewhere; every row is invertible, so that nothing is said twice.

    a linear layer     [O, I] there, [I, *O] here            a convolution     [O, I, *K] there, [*K, I, O] here

A `Form` makes one array of ours from some of theirs, and back.  A `Kind` says it of a module's parameters.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Form(NamedTuple):
    ours: Callable[[list[np.ndarray], Shape], np.ndarray]  # (theirs, the shape of ours) -> ours
    theirs: Callable[[np.ndarray], list[np.ndarray]]
    plain: bool = True  # whether a module with it answers as theirs does
    depth: int = 1  # how many modules there are one stack of blocks here


# our parameter -> (theirs, or several of theirs, and how): {"kernel": ("weight", linear)}
Kind = Mapping[str, tuple[str | tuple[str, ...], Form]]


def _one(ours: Callable[[np.ndarray, Shape], np.ndarray], theirs: Callable[[np.ndarray], np.ndarray]) -> Form:
    return Form(lambda arrays, shape: ours(arrays[0], shape), lambda array: [theirs(array)])


same = _one(lambda a, shape: a, lambda a: a)
flat = _one(lambda a, shape: a.reshape(shape), lambda a: a.reshape(-1))
linear = _one(lambda a, shape: a.T.reshape(shape), lambda a: a.reshape(len(a), -1).T)
conv = _one(
    lambda a, shape: np.moveaxis(a, (0, 1), (-1, -2)),
    lambda a: np.moveaxis(a, (-1, -2), (0, 1)),
)


def leading(axes: int) -> Form:
    """What has so many axes of length one in front there."""
    return _one(lambda a, shape: a.reshape(shape), lambda a: a[(None,) * axes])


def pointwise(rank: int) -> Form:
    """A linear layer of ours that is a convolution of width one over `rank` axes there."""
    return _one(
        lambda a, shape: linear.ours([a.reshape(a.shape[:2])], shape),
        lambda a: linear.theirs(a)[0][(..., *(None for _ in range(rank)))],
    )


def patches(patch: Shape) -> Form:
    """A linear layer on patches, (*position, channel), that is a convolution there with the patch's stride."""
    return _one(
        lambda a, shape: conv.ours([a], ()).reshape(shape),
        lambda a: conv.theirs(a.reshape(*patch, -1, a.shape[-1]))[0],
    )


def reordered(form: Form, order: Callable[[int], np.ndarray]) -> Form:
    """A form whose n outputs come in another order there: the i-th of ours is their order(n)[i]-th."""
    return Form(
        lambda arrays, shape: form.ours([arrays[0][order(len(arrays[0]))]], shape),
        lambda array: [(a := form.theirs(array)[0])[np.argsort(order(len(a)))]],
        plain=False,
    )


def by_head(heads: int, *, last: bool = False) -> Callable[[int], np.ndarray]:
    """Where q, k, v [3, head, channel] are found in [head, 3, channel]; `last`: in [head, channel, 3]."""

    def order(n):
        if last:
            return np.arange(n).reshape(heads, -1, 3).transpose(2, 0, 1).reshape(-1)
        return np.arange(n).reshape(heads, 3, -1).transpose(1, 0, 2).reshape(-1)

    return order


def joined(form: Form, parts: int, axis: int = 0) -> Form:
    """Several layers there, as q, k and v, that are one here: their outputs one after another."""
    return Form(
        lambda arrays, shape: form.ours([np.concatenate(arrays, axis)], shape),
        lambda array: np.split(form.theirs(array)[0], parts, axis),
        plain=False,
    )


def repeated(form: Form, times: int) -> Form:
    """Equal layers there that are one here."""

    def ours(arrays, shape):
        if any(not np.array_equal(array, arrays[0]) for array in arrays):
            raise ValueError("the layers that are one layer here are not equal there")
        return form.ours(arrays[:1], shape)

    return Form(ours, lambda array: form.theirs(array) * times, form.plain)


def stacked(form: Form, depth: int) -> Form:
    """Equal layers there, one after another, that are one array here with the depth as its first axis."""

    def ours(arrays, shape):
        each = len(arrays) // depth
        return np.stack([form.ours(arrays[i * each : (i + 1) * each], shape[1:]) for i in range(depth)])

    return Form(ours, lambda array: [part for layer in array for part in form.theirs(layer)], form.plain, depth)


def with_null(form: Form) -> Form:
    """A table whose last row, "unconditional", is not there: it is zero."""

    def theirs(array):
        rows = form.theirs(array)[0]
        if rows[-1].any():
            raise ValueError("the other library has no null class, and ours has learned one")
        return [rows[:-1]]

    return Form(
        lambda arrays, shape: form.ours([np.concatenate([arrays[0], np.zeros_like(arrays[0][:1])])], shape), theirs
    )


def transposed(form: Form) -> Form:
    """A form of matrices that stand on their sides there."""
    return Form(
        lambda arrays, shape: form.ours([array.T for array in arrays], shape),
        lambda array: [part.T for part in form.theirs(array)],
        plain=False,
    )


def absent() -> Form:
    """What is not there, and therefore zero here."""

    def theirs(array):
        if array.any():
            raise ValueError("the other library has no such parameter, and ours is not zero")
        return []

    return Form(lambda arrays, shape: np.zeros(shape, np.float32), theirs, plain=False)


def each(kind: Kind, change: Callable[..., Form], *args: Any) -> Kind:
    """A kind with every form changed alike."""
    return {name: (theirs, change(form, *args)) for name, (theirs, form) in kind.items()}


LINEAR: Kind = {"kernel": ("weight", linear), "bias": ("bias", flat)}
CONV: Kind = {"kernel": ("weight", conv), "bias": ("bias", flat)}
NORM: Kind = {"scale": ("weight", flat), "bias": ("bias", flat)}
TABLE: Kind = {"embedding": ("weight", same)}

"""Half and twice the size along every axis of space, through a low-pass filter; channels last, any rank.

    halve     y_i = sum_j f_j x_{2i + j - p}       f the 2p + 2 taps, scaled to the sum 1; x is zero outside
    double    along every axis, twice the adjoint of halve

Taps (1, 1) are the mean of neighbours and their repetition; (1, 3, 3, 1) are those of Song et al. 2021, appendix H.1.
"""

import operator
from collections.abc import Iterable, Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

NEAREST = (1, 1)


def halve(x: Float[Array, "B *S C"], taps: Sequence[float] = NEAREST) -> Float[Array, "B *T C"]:
    """Half as many positions along every axis of space, each of even length."""
    f, p = _filter(taps)
    for axis in range(1, x.ndim - 1):
        n, wide = x.shape[axis], _padded(x, axis, p)
        x = _sum(f[j] * lax.slice_in_dim(wide, j, j + n - 1, 2, axis) for j in range(len(f)))
    return x


def double(x: Float[Array, "B *S C"], taps: Sequence[float] = NEAREST) -> Float[Array, "B *T C"]:
    """Twice as many positions along every axis of space."""
    f, p = _filter(taps)
    reach = (p + 1) // 2
    for axis in range(1, x.ndim - 1):
        n, wide = x.shape[axis], _padded(x, axis, reach)
        near = [lax.slice_in_dim(wide, i, i + n, 1, axis) for i in range(2 * reach + 1)]
        # Position 2i + o of the answer takes x_{i + (p + o - j) / 2} wherever that is a whole number.
        taken = [[(2 * f[j], (p + o - j) // 2) for j in range((p + o) % 2, len(f), 2)] for o in (0, 1)]
        even, odd = (_sum(tap * near[reach + at] for tap, at in some) for some in taken)
        x = jnp.stack([even, odd], axis + 1).reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return x


def filtered(kernel: Float[Array, "*K I O"], taps: Sequence[float]) -> Float[Array, "*L I O"]:
    """The kernel whose convolution at stride 2 is that of `kernel` followed by `halve`, where x goes on as zero."""
    f, _ = _filter(taps)
    for axis in range(kernel.ndim - 2):
        kernel = _sum(f[j] * _padded(kernel, axis, j, len(f) - 1 - j) for j in range(len(f)))
    return kernel


def check(taps: Sequence[float]) -> None:
    """Raises ValueError for taps that are no filter."""
    if len(taps) < 2 or len(taps) % 2 or not sum(taps):
        raise ValueError(f"the taps of a filter must be an even number of numbers whose sum is not 0; got {taps}")


def check_sides(sides: Sequence[int], times: int) -> None:
    """Raises ValueError for data that cannot be halved so many times."""
    stride = 2**times
    if any(side % stride for side in sides):
        raise ValueError(
            f"data of {' x '.join(map(str, sides))} cannot be halved {times} times: every side must be divisible by "
            f"{stride}; resize the data or shorten net.multipliers"
        )


def _filter(taps):
    """The taps with the sum 1, and how many of them lie before a pair of positions."""
    return (np.asarray(taps) / np.sum(taps)).tolist(), len(taps) // 2 - 1


def _sum(terms: Iterable[Array]) -> Array:
    return reduce(operator.add, terms)


def _padded(x, axis, before, after=None):
    after = before if after is None else after
    return lax.pad(x, jnp.zeros((), x.dtype), [(before, after, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)])

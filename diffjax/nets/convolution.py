"""Convolutions, channels last, whose derivatives are as fast inside of a compiled loop as outside.

    y_o = sum_k x_(s o + k - p) w_k     dx_i = sum_k dy_((i + p - k) / s) w_k^T     dw_k = sum_o x_(s o + k - p)^T dy_o

with stride s and padding p; all three are convolutions.  XLA's CPU library knows one form of them, channels last in and
out, and brings others into it only where no loop is around: there the derivatives as lax writes them, batch and
channels in each other's place, are sixty times slower.  Here they are written in that form.

It computes them as products of matrices, with as many rows as the last axis of y is long.  Of dw those would be the
taps, three of them, and dy would be read from a far cache for each input channel.  So on one device the input channels
take that axis' place, and images are summed over in turn, as many at a time as a near cache holds.

The convolution is a primitive, for only these have a rule of transposition of their own; and a bilinear one, so
derivatives can be taken forwards, backwards, and of derivatives.  Accelerators' compilers recognise lax's own.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Padding = str | Sequence[tuple[int, int]]
POSITIONS = 512  # of images that are summed over together, where one has fewer: small ones, or the loop is long


class Convolution(nnx.Conv):
    """nnx.Conv with strides and padding alone, by `convolve`."""

    def __call__(self, x: Float[Array, "B *S I"]) -> Float[Array, "B *T O"]:  # type: ignore[override]
        bias = self.bias[...]  # pyright: ignore[reportOptionalSubscript]
        x, kernel, bias = self.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        y = convolve(x, kernel, self.strides or 1, self.padding)  # pyright: ignore[reportArgumentType]
        return y + jnp.expand_dims(bias, tuple(range(x.ndim - 1)))


def convolve(
    x: Float[Array, "B *S I"],
    kernel: Float[Array, "*K I O"],
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
) -> Float[Array, "B *T O"]:
    """y, for one stride or one for each axis of S, and padding before and after each, or "SAME" or "VALID"."""
    sizes, taps = x.shape[1:-1], kernel.shape[:-2]
    strides = (strides,) * len(sizes) if isinstance(strides, int) else tuple(strides)
    pads = lax.padtype_to_pads(sizes, taps, strides, padding) if isinstance(padding, str) else padding
    params = dict(strides=strides, padding=tuple((int(low), int(high)) for low, high in pads), sizes=sizes, taps=taps)
    return convolution_p.bind(x, kernel, **params) if jax.default_backend() == "cpu" else _value(x, kernel, **params)


def _value(x, kernel, *, strides, padding, **_):
    return _general(x, kernel, strides, padding)


def _in_x(dy, x, kernel, *, strides, padding, sizes, taps):
    flipped = jnp.flip(kernel, range(len(taps))).swapaxes(-1, -2)
    pads = []
    for size, length, stride, (low, _), out in zip(sizes, taps, strides, padding, dy.shape[1:-1], strict=True):
        before = length - 1 - low
        pads.append((before, size + length - 2 - (out - 1) * stride - before))
    return _general(dy, flipped, (1,) * len(taps), pads, lhs_dilation=strides)


def _in_kernel(dy, x, kernel, *, strides, padding, sizes, taps):
    if not dy.size:
        return jnp.zeros((*taps, x.shape[-1], dy.shape[-1]), x.dtype)
    around = [  # x for dy, as a kernel, to have as many places as there are taps
        (low, length - size + (out - 1) * stride - low)
        for size, length, stride, (low, _), out in zip(sizes, taps, strides, padding, dy.shape[1:-1], strict=True)
    ]
    return (_by_images if jax.device_count() == 1 else _at_once)(dy, x, strides, around, taps)


def _by_images(dy, x, strides, around, taps):
    """dw, a sum over n images after n, n a divisor of the batch.  The last axis is summed over as channels are:

    x [n, *S, W, I] -> [taps of W, *S, I, n W'],  dy [n, *S', W', O] -> [*S', 1, n W', O],  sum [taps of W, *K, I, O]
    """
    *sizes, out = dy.shape[1:-1]
    most = max(1, POSITIONS // (math.prod(sizes) * out))
    together = max(n for n in range(1, len(x) + 1) if len(x) % n == 0 and n <= most)
    *strides, stride = strides
    rank, span = len(taps), (out - 1) * stride + 1
    edges = [*((0, 0, 0),) * rank, (*around[-1], 0), (0, 0, 0)]

    def add(total, images):
        x, dy = images
        x = lax.pad(x, jnp.zeros((), x.dtype), edges)
        x = jnp.stack([lax.slice_in_dim(x, k, k + span, stride, axis=rank) for k in range(taps[-1])])
        x = x.transpose(0, *range(2, rank + 1), rank + 2, 1, rank + 1)
        x = x.reshape(*x.shape[:-2], together * out)
        dy = jnp.moveaxis(dy, 0, rank - 1).reshape(*sizes, 1, together * out, dy.shape[-1])
        found = _general(x, dy, (1,) * rank, [*around[:-1], (0, 0)], rhs_dilation=(*strides, 1))
        return total + found.astype(total.dtype), None

    few = [a.reshape(len(a) // together, together, *a.shape[1:]) for a in (x, dy)]
    zeros = jnp.zeros((taps[-1], *taps[:-1], x.shape[-1], dy.shape[-1]), jnp.promote_types(x.dtype, jnp.float32))
    return jnp.moveaxis(lax.scan(add, zeros, few)[0], 0, rank - 1).astype(x.dtype)


def _at_once(dy, x, strides, around, taps):
    """dw, of a batch that may lie on several devices: it is what is summed over, as channels are."""
    x, dy = jnp.swapaxes(x, 0, -1), jnp.moveaxis(dy, 0, -2)
    return jnp.moveaxis(_general(x, dy, (1,) * len(taps), around, rhs_dilation=strides), 0, -2)


def _general(x, kernel, strides, padding, **dilation):
    axes = "DHW"[-(x.ndim - 2) :]
    numbers = f"N{axes}C", f"{axes}IO", f"N{axes}C"
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, **dilation)


def _abstract(x, kernel, **params):
    return ShapedArray(jax.eval_shape(partial(_value, **params), x, kernel).shape, x.dtype)


def _batched(args, dims, **params):
    return jax.vmap(partial(_value, **params), dims)(*args), 0


convolution_p = Primitive("convolution")
convolution_p.def_impl(_value)
convolution_p.def_abstract_eval(_abstract)
ad.defbilinear(convolution_p, _in_x, _in_kernel)
batching.primitive_batchers[convolution_p] = _batched
mlir.register_lowering(convolution_p, mlir.lower_fun(_value, multiple_results=False))

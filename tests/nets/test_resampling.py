"""Resampling against scipy's convolution of arrays that go on as zero; every rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from diffjax.nets import resampling
from diffjax.nets.resampling import double, filtered, halve

TAPS = [(1, 1), (1, 3, 3, 1), (1, 4, 6, 6, 4, 1), (3, 1, 0, 2)]
SHAPES = [(2, 8, 3), (2, 4, 6, 3), (1, 4, 2, 6, 2)]
cases = [pytest.mark.parametrize("taps", TAPS), pytest.mark.parametrize("shape", SHAPES)]


def everywhere(mark):
    for each in cases:
        mark = each(mark)
    return mark


def random_array(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def grid(taps, rank):
    """The filter over all axes at once, of sum 1."""
    f = np.asarray(taps) / np.sum(taps)
    whole = f
    for _ in range(rank - 1):
        whole = np.multiply.outer(whole, f)
    return whole


def per_channel(x, change):
    return np.stack([np.stack([change(np.asarray(row[..., c], float)) for c in range(row.shape[-1])], -1) for row in x])


@everywhere
def test_halve_is_every_second_value_of_a_correlation(shape, taps):
    rank, before = len(shape) - 2, len(taps) // 2 - 1

    def change(a):
        whole = scipy.signal.correlate(np.pad(a, before), grid(taps, rank), mode="valid", method="direct")
        return whole[(slice(None, None, 2),) * rank]

    x = random_array(shape)
    np.testing.assert_allclose(halve(x, taps), per_channel(x, change), atol=1e-6)


@everywhere
def test_double_is_a_filter_of_values_with_zeros_between(shape, taps):
    """And keeps the mean: a filter of sum 2 along every axis."""
    rank, before = len(shape) - 2, len(taps) // 2 - 1

    def change(a):
        apart = np.zeros([2 * n for n in a.shape])
        apart[(slice(None, None, 2),) * rank] = a
        full = scipy.signal.convolve(apart, 2**rank * grid(taps, rank), method="direct")
        return full[tuple(slice(before, before + n) for n in apart.shape)]

    x = random_array(shape)
    np.testing.assert_allclose(double(x, taps), per_channel(x, change), atol=1e-6)


@everywhere
def test_double_is_the_adjoint_of_halve(shape, taps):
    x = random_array(shape)
    small = halve(x, taps)
    y, rank = random_array(small.shape, seed=1), len(shape) - 2
    np.testing.assert_allclose(jnp.vdot(double(y, taps), x), 2**rank * jnp.vdot(y, small), rtol=1e-4, atol=1e-4)


def test_the_default_is_repetition_and_the_mean():
    x = random_array((2, 4, 6, 3))
    np.testing.assert_array_equal(double(x), np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
    np.testing.assert_allclose(halve(x), np.asarray(x).reshape(2, 2, 2, 3, 2, 3).mean((2, 4)), atol=1e-6)


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_filtered_kernel_is_a_convolution_and_then_the_filter(taps, rank):
    """Both see beyond the edge: nothing is cut off between them."""
    x, kernel = random_array((1, *(4,) * rank, 2)), random_array((*(3,) * rank, 2, 3), seed=1)
    axes, reach = "DHW"[-rank:], len(taps) // 2
    found = jax.lax.conv_general_dilated(
        x, filtered(kernel, taps), (2,) * rank, [(reach, reach)] * rank,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )  # fmt: skip
    wanted = np.zeros(found.shape)
    for i in range(2):
        for o in range(3):
            a, w = np.asarray(x[0, ..., i], float), np.asarray(kernel[..., i, o], float)
            whole = scipy.signal.correlate(np.pad(a, reach), w, mode="valid", method="direct")
            whole = scipy.signal.correlate(whole, grid(taps, rank), mode="valid", method="direct")
            wanted[0, ..., o] += whole[(slice(None, None, 2),) * rank]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("taps", [(), (1,), (1, 2, 1), (1, -1)])
def test_what_is_no_filter_is_refused(taps):
    with pytest.raises(ValueError, match="even number of numbers whose sum is not 0; got"):
        resampling.check(taps)

"""The convolution of our own and its derivatives, beside lax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffjax.nets import convolution
from diffjax.nets.convolution import convolution_p, convolve
from diffjax.training.cost import equations, flops

CASES = {
    "a line": ((4, 9, 3), (3,), 1, "SAME"),
    "a picture": ((4, 6, 5, 3), (3, 3), 1, "SAME"),
    "a volume": ((4, 4, 5, 3, 2), (3, 3, 3), 1, "SAME"),
    "every second": ((2, 8, 8, 3), (3, 3), 2, "SAME"),
    "every second of an odd number": ((2, 7, 9, 3), (3, 3), 2, [(1, 1), (1, 1)]),
    "some are left over": ((2, 9, 8, 3), (2, 1), (3, 2), "VALID"),
    "an even kernel, wide edges": ((1, 5, 6, 2), (4, 2), 1, [(3, 1), (0, 4)]),
}


@pytest.fixture(autouse=True)
def few_positions(monkeypatch):
    """On one device a case's images are summed over all together, some at a time, or one."""
    monkeypatch.setattr(convolution, "POSITIONS", 120)


def random_array(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def theirs(x, kernel, strides, padding):
    rank = x.ndim - 2
    axes = "DHW"[-rank:]
    return lax.conv_general_dilated(
        x, kernel, np.broadcast_to(strides, rank), padding, dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C")
    )


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_are_those_of_lax(case, devices):
    """Backwards, forwards, forwards over backwards, backwards over forwards, and in a batch of a batch."""
    shape, taps, strides, padding = CASES[case]
    with jax.enable_x64(True):
        x, kernel = random_array(*shape, seed=1), random_array(*taps, shape[-1], 4, seed=2)
        moved = random_array(*x.shape, seed=3), random_array(*kernel.shape, seed=4)

        def everything(conv):
            answer = lambda x, kernel: conv(x, kernel, strides, padding)  # noqa: E731
            total = lambda *args: jnp.sum(jnp.sin(answer(*args)))  # noqa: E731
            along = lambda *args: jnp.sum(jax.jvp(answer, args, moved)[1] ** 2)  # noqa: E731
            slope = jax.grad(total, argnums=(0, 1))
            many = jax.vmap(slope, in_axes=(0, None))(jnp.stack([x, 2 * x]), kernel)
            return [answer(x, kernel), slope(x, kernel), jax.jvp(answer, (x, kernel), moved),
                    jax.jvp(slope, (x, kernel), moved), jax.grad(along, argnums=(0, 1))(x, kernel), many]  # fmt: skip

        found, wanted = (jax.tree.leaves(jax.jit(everything, static_argnums=0)(c)) for c in (convolve, theirs))
        for one, two in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


def test_the_arithmetic_is_counted_as_that_of_lax(devices):
    x, kernel = random_array(2, 6, 6, 3), random_array(3, 3, 3, 4)
    counted = [
        flops(jax.make_jaxpr(conv, static_argnums=(2, 3))(x, kernel, 1, "SAME").jaxpr) for conv in (convolve, theirs)
    ]
    assert counted[0] == counted[1] == 2 * (2 * 6 * 6 * 4) * (3 * 3 * 3)
    slope = jax.grad(lambda kernel: jnp.sum(jnp.sin(convolve(x, kernel))))
    assert flops(jax.make_jaxpr(slope)(kernel).jaxpr) == 2 * counted[0]


@pytest.mark.parametrize("shape", [(0, 6, 6, 3), (2, 2, 2, 3)], ids=["no images", "none of them large enough"])
def test_of_nothing_the_gradient_is_zero(devices, shape):
    found = jax.grad(lambda k: jnp.sum(convolve(jnp.ones(shape), k, padding="VALID")))(jnp.ones((3, 3, 3, 4)))
    assert found.shape == (3, 3, 3, 4) and not found.any()


def test_sums_over_images_are_in_float32(devices, monkeypatch):
    """In bfloat16 a sum of twos would come no farther than 512."""
    monkeypatch.setattr(convolution, "POSITIONS", 1)
    x, kernel = jnp.ones((512, 2, 3), jnp.bfloat16), jnp.ones((1, 3, 4), jnp.bfloat16)
    found = jax.grad(lambda kernel: jnp.sum(convolve(x, kernel).astype(jnp.float32)))(kernel)
    assert found.dtype == jnp.bfloat16 and (found == 1024).all()


@pytest.mark.parametrize("which", [0, 1])
def test_derivatives_have_their_channels_last(which, devices):
    """The one form that XLA's CPU library knows, for it is not brought about in loops."""
    x, kernel = random_array(2, 6, 6, 3), random_array(3, 3, 3, 4)
    slope = jax.grad(lambda *args: jnp.sum(jnp.sin(convolve(*args))), argnums=which)
    numbers = [
        equation.params["dimension_numbers"]
        for equation, _ in equations(jax.make_jaxpr(slope)(x, kernel).jaxpr)
        if equation.primitive is lax.conv_general_dilated_p
    ]
    (form,) = numbers
    assert form == lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def test_accelerators_get_laxs_own(monkeypatch):
    x, kernel = random_array(2, 6, 6, 3), random_array(3, 3, 3, 4)
    kinds = lambda: {e.primitive for e, _ in equations(jax.make_jaxpr(lambda *xs: convolve(*xs))(x, kernel).jaxpr)}  # noqa: E731
    assert kinds() == {convolution_p}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert kinds() == {lax.conv_general_dilated_p}

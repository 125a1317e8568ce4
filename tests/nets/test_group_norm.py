"""Group norm, FiLM and SiLU as one operation against plain formulas, with their derivatives in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffjax.nets.group_norm import GroupNorm, group_norm


def random_array(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def plain(x, scale, bias, film, groups, silu):
    """The definition, one group at a time."""
    parts = []
    for part in jnp.split(x, groups, axis=-1):
        axes = tuple(range(1, x.ndim))
        parts.append((part - part.mean(axes, keepdims=True)) / jnp.sqrt(part.var(axes, keepdims=True) + 1e-5))
    y = jnp.concatenate(parts, axis=-1) * scale + bias
    if film is not None:
        s, t = (jnp.expand_dims(half, tuple(range(1, x.ndim - 1))) for half in jnp.split(film, 2, axis=-1))
        y = y * (1 + s) + t
    return y / (1 + jnp.exp(-y)) if silu else y


CASES = [((3, 5, 6), 3, True, True), ((2, 3, 4, 8), 2, False, True), ((2, 2, 3, 2, 4), 1, True, False),
         ((2, 4, 4, 1), 1, False, False)]  # fmt: skip


@pytest.mark.parametrize("shape, groups, filmed, silu", CASES)
def test_value_and_derivatives_are_those_of_the_formula(shape, groups, filmed, silu):
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        channels = shape[-1]
        film = jnp.asarray(random_array(shape[0], 2 * channels, seed=2)) if filmed else None
        args = 2 * random_array(*shape) + 1, random_array(channels, seed=3), random_array(channels, seed=4), film
        args = jax.tree.map(jnp.asarray, args)
        mix = random_array(*shape, seed=5)
        ours = lambda *args: group_norm(*args, groups=groups, eps=1e-5, silu=silu)  # noqa: E731
        theirs = lambda *args: plain(*args, groups, silu)  # noqa: E731
        moved = jax.tree.map(lambda leaf: leaf[::-1] + 0.3, args)
        which = (0, 1, 2, 3) if filmed else (0, 1, 2)

        def value_and_derivatives(function):
            slope = jax.grad(lambda *args: jnp.sum(mix * function(*args)), argnums=which)
            value, pushed = jax.jvp(function, args, moved)
            forward_over_reverse = jax.jvp(slope, args, moved)[1]
            return value, [*slope(*args), pushed, *jax.tree.leaves(forward_over_reverse)]

        (value, found), (true, wanted) = (jax.jit(value_and_derivatives, static_argnums=0)(f) for f in (ours, theirs))
        np.testing.assert_allclose(value, true, rtol=1e-9, atol=1e-9)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_the_backward_pass_keeps_the_input_and_nothing_of_its_size():
    from jax._src.ad_checkpoint import saved_residuals

    x = jnp.asarray(random_array(2, 8, 8, 16), jnp.float32)
    scale, bias = jnp.ones(16), jnp.zeros(16)
    kept = saved_residuals(lambda x: group_norm(x, scale, bias, groups=4, eps=1e-5, silu=True), x)
    large = [place for shape, place in kept if shape.size >= x.size]
    assert len(large) == sum("argument" in place for place in large) == 1


def test_it_is_that_of_flax():
    norm, theirs = GroupNorm(16, rngs=nnx.Rngs(0)), nnx.GroupNorm(16, num_groups=4, epsilon=1e-5, rngs=nnx.Rngs(0))
    for name in ("scale", "bias"):
        getattr(norm, name)[...] = getattr(theirs, name)[...] = jnp.asarray(random_array(16), jnp.float32)
    x = jnp.asarray(random_array(2, 4, 4, 16), jnp.float32)
    np.testing.assert_allclose(jax.jit(norm)(x), jax.jit(theirs)(x), rtol=1e-5, atol=1e-5)


def test_it_computes_in_float32():
    """Of a bfloat16 input only the result is rounded: sums of thousands of its values would be off by a percent."""
    norm = jax.jit(GroupNorm(4, rngs=nnx.Rngs(0)))
    x = jnp.asarray(random_array(1, 64, 64, 4) + 3, jnp.bfloat16)
    rough, fine = norm(x), norm(x.astype(jnp.float32))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(rough, np.float32), fine, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("most, least", [(32, 4), (32, 1), (8, 4)])
def test_groups(most, least):
    """The most groups, up to a limit, that divide the channels into at least so many each."""
    for channels in range(1, 300):
        allowed = [g for g in range(1, most + 1) if channels % g == 0 and channels // g >= least]
        norm = nnx.eval_shape(lambda c=channels: GroupNorm(c, groups=most, least=least, rngs=nnx.Rngs(0)))
        assert norm.groups == max(allowed, default=1)

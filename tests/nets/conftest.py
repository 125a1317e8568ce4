"""Small networks with random parameters: zero initialisations would hide what is connected to nothing.

Numbers come from numpy, and programs are shared between tests: what these tests spend is compilation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.nets import NETS
from diffjax.nets.functional import functional

SMALL = {
    "unet": dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,), head_width=8),
    "ddpm": dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=2),
    "adm": dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=2, head_width=8),
    "ddpmpp": dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,)),
    "ncsnpp": dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,)),
    "dit": dict(width=16, depth=2, heads=2),
    "pixel_transformer": dict(width=16, depth=2, heads=2, patch=2, bottleneck=8, class_tokens=3),
    "mlp": dict(width=16, depth=2),
    "edm2": dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,), head_width=8),
}


@functools.cache
def small_net(name, shape=(8, 4, 3), classes=10, **options):
    """The Net of a row of NETS; a row without an entry in SMALL is tested with its defaults."""
    options = SMALL.get(name, {}) | options
    return functional(lambda rngs: NETS[name](shape, classes, rngs=rngs, **options))


@functools.cache
def abstract_params(net):
    return jax.eval_shape(net.init, jax.random.key(0))


def random_params(net):
    draw = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * draw.standard_normal(leaf.shape), leaf.dtype), abstract_params(net)
    )


def leaf_names(params):
    return ["/".join(str(key.key) for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def example(shape=(8, 4, 3)):
    """x, level, and labels that hold every class and the null class, 10."""
    x = np.random.default_rng(2).standard_normal((12, *shape))
    return jnp.asarray(x, jnp.float32), jnp.linspace(0.05, 0.95, 12), jnp.arange(12, dtype=jnp.int32) % 11


@functools.cache
def compiled_apply(name):
    return jax.jit(small_net(name).apply)


@functools.cache
def gradients(name):
    """Those of a random mixture of the outputs, with respect to params, x and level."""
    net, (x, level, label) = small_net(name), example()
    mix = jnp.asarray(np.random.default_rng(3).standard_normal(x.shape), jnp.float32)
    mixture = lambda p, x, level: jnp.sum(mix * net.apply(p, x, level, label))  # noqa: E731
    return jax.jit(jax.grad(mixture, argnums=(0, 1, 2)))(random_params(net), x, level)


jit, small, abstract, randomised, names, batch, compiled, grads = (
    pytest.fixture(scope="session", name=name)(lambda function=function: function)
    for name, function in dict(
        jit=jax.jit, small=small_net, abstract=abstract_params, randomised=random_params, names=leaf_names,
        batch=example, compiled=compiled_apply, grads=gradients,
    ).items()
)  # fmt: skip

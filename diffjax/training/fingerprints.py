"""Fingerprints: 64 bits per leaf that say whether an array is still what it was, taken where the array lives.

With w_i the words of a leaf, i their row-major index, m a bijection of 32-bit words, a and b odd, a fingerprint is

    (sum_i h_i, sum_i m(h_i + b i))  mod 2^32,   h_i = m(w_i ^ a i).

Both sums are bijective in each w_i: one changed word always shows, any other change all but once in 2^64.  Integer
sums commute: sharding, devices and processes do not matter.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped, UInt32

from diffjax.errors import InputError


def fingerprint(tree: PyTree) -> dict[str, str]:
    """16 hex digits for each leaf path of `tree`; PRNG keys, every dtype JAX stores and any sharding are welcome."""
    leaves = {path: jnp.asarray(leaf) for path, leaf in named(tree).items()}
    sums = jax.device_get([_ended(_summed(leaf.sharding)(leaf)) for leaf in map(_near, leaves.values())])
    return {path: f"{int(first):08x}{int(second):08x}" for path, (first, second) in zip(leaves, sums, strict=True)}


def _near(leaf: Array) -> Array:
    """The leaf in the memory of its devices: one that waits in the host's is computed with there."""
    return (
        leaf
        if leaf.sharding.memory_kind != "pinned_host"
        else jax.device_put(leaf, leaf.sharding.with_memory_kind("device"))
    )


def _ended(sums: Any) -> Any:
    """On simulated devices, of which there are more than cores, collectives of several programs block each other."""
    return jax.block_until_ready(sums) if jax.default_backend() == "cpu" else sums


@functools.cache
def _summed(sharding: jax.sharding.Sharding) -> Callable[[Array], tuple[Array, Array]]:
    # Compiled per shape, not per tree: params, EMA and moments share programs.  Replicated: every process reads it.
    everywhere = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    return jax.jit(_sums, out_shardings=everywhere)


def _sums(leaf: Shaped[Array, "..."]) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    words = _words(leaf)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):  # by axis, not on a flat view: a reshape would gather a sharded leaf
        stride = math.prod(words.shape[axis + 1 :]) % 2**32
        index += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride)
    first = _scrambled(words ^ index * np.uint32(0x9E3779B1))
    second = _scrambled(first + index * np.uint32(0x85EBCA77))
    # Two sums, each of them all-reduced; one reduction of both would be faster but gathers a sharded leaf.
    return jnp.sum(first, dtype=jnp.uint32), jnp.sum(second, dtype=jnp.uint32)


def _words(leaf: Shaped[Array, "..."]) -> UInt32[Array, "..."]:
    """The bits of `leaf`, one word per element, two (a last axis) for elements of 64 bits."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == bool or (jnp.issubdtype(leaf.dtype, jnp.integer) and jnp.iinfo(leaf.dtype).bits < 8):
        leaf = leaf.astype(jnp.int8)  # these have no bytes of their own to look at
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)


def _scrambled(words: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The finalizer of MurmurHash3: xor-shifts and odd multipliers, each of them a bijection."""
    words = (words ^ words >> 16) * np.uint32(0x85EBCA6B)
    words = (words ^ words >> 13) * np.uint32(0xC2B2AE35)
    return words ^ words >> 16


def named(tree: PyTree) -> dict[str, Any]:
    """Leaves by path, in tree order; `ema/down/0/kernel` whether 0 is a list index, an int key or a tuple field."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    if len(leaves) != len(flat):
        raise InputError(
            "two leaves of a state have the same path; rename keys that contain '/' or differ only in type"
        )
    return leaves

"""A fingerprint sees every bit and the order, and nothing of devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffjax.training import fingerprints
from diffjax.training.fingerprints import fingerprint


def over(count: int, *spec: str | None) -> NamedSharding:
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    return NamedSharding(mesh, PartitionSpec(*spec))


LEAVES = {
    "float32": jnp.linspace(-1, 1, 32).reshape(8, 4),
    "bfloat16": jnp.linspace(-1, 1, 32, dtype=jnp.bfloat16).reshape(8, 4),
    "complex64": jnp.linspace(-1, 1, 8) * (1 + 2j),
    "uint8": jnp.arange(24, dtype=jnp.uint8).reshape(8, 3),
    "int4": jnp.arange(-8, 8, dtype=jnp.int4),
    "bool": jnp.arange(16) % 3 == 0,
    "float8_e4m3fn": jnp.arange(8, dtype=jnp.float8_e4m3fn),
    "key<fry>": jax.random.split(jax.random.key(0), 8),
    "scalar": jnp.float32(2.0),
}


def one(leaf) -> str:
    (value,) = fingerprint({"leaf": leaf}).values()
    return value


@pytest.mark.parametrize("kind", LEAVES)
def test_every_bit_counts_in_both_sums(kind):
    leaf = LEAVES[kind]
    known = [one(leaf)]
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    raw = np.array(jax.random.key_data(leaf) if is_key else leaf)
    for at in {0, raw.size // 2, raw.size - 1}:
        for bit in {"bool": [0], "int4": range(4)}.get(kind, range(8 * raw.itemsize)):
            changed = raw.copy()
            if kind == "int4":
                values = changed.astype(np.int8).reshape(-1)
                values[at] = ((values[at] & 15 ^ 1 << bit) + 8) % 16 - 8
                changed = values.astype(raw.dtype).reshape(raw.shape)
            else:
                changed.reshape(-1).view(np.uint8)[at * raw.itemsize + bit // 8] ^= 1 << bit % 8
            known.append(one(jax.random.wrap_key_data(changed) if is_key else jnp.asarray(changed)))
    for half in (slice(0, 8), slice(8, 16)):
        assert all(value[half] != known[0][half] for value in known[1:])
    assert len(set(known)) == len(known)


def test_order_counts():
    generator = np.random.default_rng(0)
    values = generator.normal(size=64).astype(np.float32)
    values[32:] = -values[:32]  # pairs that differ in the highest bit only: what a linear sum cannot tell apart
    known = {one(values)}
    swaps = [(i, i + 32) for i in range(32)] + [tuple(generator.choice(64, 2, replace=False)) for _ in range(200)]
    for i, j in set(swaps):
        swapped = values.copy()
        swapped[[i, j]] = swapped[[j, i]]
        known.add(one(swapped))
    assert len(known) == 1 + len({tuple(sorted(pair)) for pair in swaps})
    assert one(np.zeros(3, np.float32)) != one(np.zeros(4, np.float32))
    assert one(values.reshape(8, 8)) != one(values.reshape(8, 8).T)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "complex64", "uint8", "int4", "bool", "key<fry>"])
def test_a_fingerprint_does_not_depend_on_devices(kind):
    leaf = LEAVES[kind]
    for where in (over(1), over(8), over(8, "data"), over(4, "data")):
        assert one(jax.device_put(leaf, where)) == one(leaf)


def test_a_sharded_leaf_is_not_gathered():
    where = over(8, "data")
    program = fingerprints._summed(where).lower(jax.device_put(LEAVES["bfloat16"], where)).compile().as_text()
    assert "all-reduce" in program and "all-gather" not in program


def test_fingerprints_are_named_and_fixed_for_ever():
    tree = {"ema": {"down": {0: {"kernel": jnp.arange(3.0)}}, "none": jnp.zeros((0, 2))}}
    assert json.loads(json.dumps(fingerprint(tree))) == {
        "ema/down/0/kernel": "32e2c826087f1b75",
        "ema/none": "0000000000000000",
    }


def test_a_key_is_still_fresh_after_its_fingerprint():
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        one(key)
        jax.random.normal(key)
        one(key)

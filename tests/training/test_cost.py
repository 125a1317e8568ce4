"""What is read off a compiled program, against programs whose cost is known."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from diffjax.training import make_mesh
from diffjax.training.cost import ACCELERATORS, collectives, flops, memory, peak_flops, state_bytes
from diffjax.training.step import State

MESH = make_mesh(4, 2)


def arrays(shape, spec, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(MESH, spec))


@pytest.mark.parametrize(
    "rule, out, kind, size",
    [
        (lambda x: x.sum(0), P(), "all-reduce", 256 * 4),
        (lambda x: 2 * x, P(), "all-gather", 64 * 256 * 4),
    ],
)
def test_collectives_and_their_bytes(rule, out, kind, size):
    compiled = jax.jit(rule, out_shardings=NamedSharding(MESH, out)).lower(arrays((64, 256), P("fsdp"))).compile()
    found = {name: sizes for name, sizes in collectives(compiled).items() if sizes}
    assert found == {kind: [size]}


def test_what_needs_none_has_none():
    compiled = jax.jit(lambda x: jnp.tanh(x)).lower(arrays((64, 256), P("fsdp"))).compile()
    assert not any(collectives(compiled).values())


def test_arithmetic_is_counted_as_often_as_it_is_done():
    def count(rule, *shapes):
        return flops(jax.make_jaxpr(jax.jit(rule))(*(jnp.zeros(shape) for shape in shapes)).jaxpr)

    assert count(lambda a, b: a @ b, (32, 64), (64, 16)) == 2 * 32 * 64 * 16
    assert count(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (5, 3, 4), (5, 4, 2)) == 5 * 2 * 3 * 4 * 2
    five = lambda a, b: jax.lax.scan(jax.checkpoint(lambda a, _: (a @ b, None)), a, length=5)[0]  # noqa: E731
    assert count(five, (8, 8), (8, 8)) == 5 * 2 * 8**3
    conv = lambda x, w: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )
    assert count(conv, (3, 8, 8, 6), (3, 3, 3, 10)) == 2 * (3 * 4 * 4 * 10) * 3 * 3 * 3


def test_memory_and_state_of_a_device():
    tree = {"w": arrays((64, 256), P("fsdp", "tensor")), "b": arrays((256,), P())}
    state = State(
        arrays((), P(), jnp.int32), tree, (tree,), (tree, tree), jax.eval_shape(lambda: jax.random.key(0))
    )._replace(key=jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=NamedSharding(MESH, P())))
    one = 64 * 256 * 4 // 8 + 256 * 4
    assert state_bytes(state) == {"step": 4, "params": one, "ema": one, "opt": 2 * one, "key": 8}
    compiled = jax.jit(lambda tree: jax.tree.map(lambda a: a + 1, tree), donate_argnums=0).lower(tree).compile()
    assert memory(compiled)["arguments"] == one and memory(compiled)["outputs"] < 100


def test_accelerators_are_known_by_what_jax_calls_them():
    def found(kind, count=2):
        return peak_flops([SimpleNamespace(device_kind=kind)] * count)

    assert found("NVIDIA H200") == 2 * 989e12 and found("TPU v5 lite", 1) == 197e12 and found("TPU v5", 1) == 459e12
    assert found("NVIDIA A100-SXM4-80GB") == found("NVIDIA A100-SXM4-40GB") == 2 * 312e12 and found("cpu") == 0
    for one in ACCELERATORS.values():  # a product of bfloat16 takes more arithmetic than a byte of memory
        assert 100 < one.flops / one.bandwidth < 600 and one.memory > 1e10

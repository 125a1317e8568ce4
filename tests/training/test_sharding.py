"""Where arrays live: on eight simulated devices."""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffjax.errors import InputError
from diffjax.training.sharding import (
    ahead,
    batch_sharding,
    local_rows,
    make_mesh,
    replicated,
    row_parts,
    stacked_sharding,
    state_sharding,
    to_devices,
    to_host,
)


@pytest.mark.parametrize("fsdp, tensor, shape", [(1, 1, (8, 1, 1)), (8, 1, (1, 8, 1)), (2, 2, (2, 2, 2))])
def test_mesh(fsdp, tensor, shape):
    mesh = make_mesh(fsdp, tensor)
    assert (mesh.axis_names, mesh.devices.shape) == (("data", "fsdp", "tensor"), shape)
    assert row_parts(mesh) == 8 // tensor


@pytest.mark.parametrize("fsdp, tensor", [(3, 1), (0, 1), (-2, 1), (16, 1), (1, 3), (4, 4)])
def test_a_mesh_that_does_not_fit_is_refused(fsdp, tensor):
    with pytest.raises(
        ValueError, match=f"mesh.fsdp={fsdp} x mesh.tensor={tensor} does not divide the 8 devices; choose"
    ):
        make_mesh(fsdp, tensor)


@dataclass(frozen=True)
class Chip:
    """A device of a pod, as a mesh sees it."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "pretended"


def test_only_the_data_axis_crosses_slices():
    mesh = make_mesh(2, 2, [Chip(i, i % 2) for i in range(16)])
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    assert mesh.devices.shape == (4, 2, 2)
    assert (slices == slices[:, :1, :1]).all() and sorted(slices[:, 0, 0]) == [0, 0, 1, 1]


def test_the_rows_of_a_process_are_those_of_its_devices():
    np.testing.assert_array_equal(local_rows(make_mesh(2, 2), 16), np.arange(16))


def test_batches_are_read_one_call_ahead_in_order_and_errors_arrive_in_their_turn():
    read, mesh = [], make_mesh()

    def source():
        for i in range(6):
            read.append(i)
            yield {"x": np.full((8, 2), i)}
        raise InputError("example 77 cannot be read")

    batches = ahead(source(), iter([1, 2, 3, 1]), mesh)
    first = next(batches)
    assert first["x"].shape == (1, 8, 2) and first["x"].sharding == stacked_sharding(mesh)
    rest = [next(batches)["x"] for _ in range(2)]
    assert [x[:, 0, 0].tolist() for x in rest] == [[1, 2], [3, 4, 5]] and {x.sharding for x in rest} == {
        stacked_sharding(mesh)
    }
    with pytest.raises(InputError, match="77"):
        next(batches)
    read.clear()
    endless = ahead(
        map(lambda i: read.append(i) or {"x": np.zeros((8, 2))}, itertools.count()), itertools.repeat(2), mesh
    )
    next(endless), endless.close()
    assert len(read) == 4  # one call was on its way
    read.clear()
    assert len(list(ahead(source(), [2, 1], mesh))) == 2 and read == [0, 1, 2]  # and none is read in vain


def test_what_is_split_over_tensor_is_said_by_rows():
    tree = {"params": {"block": {"qkv": {"kernel": jax.ShapeDtypeStruct((128, 384), jnp.float32)}}}}
    rows = ((r"qkv/kernel", (None, "tensor")), (r"kernel", ("tensor", None)))
    place = lambda *sizes: state_sharding(make_mesh(*sizes), tree, rows)["params"]["block"]["qkv"]["kernel"].spec  # noqa: E731
    assert place(2, 2) == P("fsdp", "tensor") and place(1, 2) == P(None, "tensor") and place(2, 1) == P(None, "fsdp")
    odd = {"qkv": {"kernel": jax.ShapeDtypeStruct((128, 383), jnp.float32)}}
    assert state_sharding(make_mesh(2, 2), odd, rows)["qkv"]["kernel"].spec == P("fsdp")


def test_what_a_loop_runs_over_is_not_split():
    tree = {"blocks": {"kernel": jax.ShapeDtypeStruct((1024, 64, 127), jnp.float32)}}
    place = lambda rows: state_sharding(make_mesh(4), tree, rows)["blocks"]["kernel"].spec  # noqa: E731
    assert place(()) == P("fsdp") and place(((r"blocks/.*", ("scan", None, None)),)) == P(None, "fsdp")


@pytest.mark.parametrize(
    "shape, spec",
    [
        ((128, 256), P(None, "fsdp")),  # the longest axis
        ((256, 128), P("fsdp")),
        ((3, 3, 64, 64), P(None, None, "fsdp")),  # the first of equals
        ((64, 1001), P("fsdp")),  # the longest that divides
        ((129, 127), P()),  # none divides
        ((128, 127), P()),  # too small
        ((128, 128), P("fsdp")),  # just not too small
        ((), P()),
    ],
)
def test_each_array_is_split_along_its_longest_divisible_axis(shape, spec):
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert state_sharding(make_mesh(4), {"a": leaf})["a"].spec == spec
    assert state_sharding(make_mesh(1), {"a": leaf})["a"].spec == P()


def test_batches_are_split_over_all_devices_and_come_back():
    mesh, x = make_mesh(2), np.arange(48, dtype=np.float32).reshape(16, 3)
    placed = to_devices({"x": x, "label": np.arange(16)}, batch_sharding(mesh))
    assert {shard.data.shape for shard in placed["x"].addressable_shards} == {(2, 3)}
    assert len({str(shard.index) for shard in placed["label"].addressable_shards}) == 8
    np.testing.assert_array_equal(to_host(placed["x"]), x)
    assert jax.device_put(x, replicated(mesh)).is_fully_replicated

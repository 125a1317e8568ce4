"""Where arrays live: on eight simulated devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from diffjax.training.sharding import batch_sharding, make_mesh, replicated, state_sharding, to_devices, to_host


@pytest.mark.parametrize("fsdp, shape", [(1, (8, 1)), (2, (4, 2)), (8, (1, 8))])
def test_mesh(fsdp, shape):
    mesh = make_mesh(fsdp)
    assert (mesh.axis_names, mesh.devices.shape) == (("data", "fsdp"), shape)


@pytest.mark.parametrize("fsdp", [3, 0, -2, 16])
def test_a_mesh_that_does_not_fit_is_refused(fsdp):
    with pytest.raises(ValueError, match=f"mesh.fsdp={fsdp} does not divide the 8 devices; choose"):
        make_mesh(fsdp)


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

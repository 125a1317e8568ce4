"""Where arrays live: one mesh, one rule.

The mesh has two axes.  Batches are split over both.  Parameters, their average and the optimizer's moments are split
over `fsdp` (Rajbhandari et al. 2020, "ZeRO"): each array along its largest divisible axis, if it is worth the traffic.
One device is a mesh of one: there is one path.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

SMALLEST_SPLIT = 2**14  # elements; below this an all-gather costs more than the memory it saves


def make_mesh(fsdp: int = 1) -> Mesh:
    """All devices as (data, fsdp).  Raises ValueError if fsdp does not divide their number."""
    devices = jax.device_count()
    if fsdp < 1 or devices % fsdp:
        raise ValueError(f"mesh.fsdp={fsdp} does not divide the {devices} devices; choose a divisor of {devices}")
    return jax.make_mesh((devices // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, P())


def state_sharding(mesh: Mesh, abstract: Any) -> Any:
    """The sharding of every leaf of a tree of jax.ShapeDtypeStruct."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(leaf.shape, mesh.shape["fsdp"])), abstract)


def _spec(shape: tuple[int, ...], parts: int) -> P:
    divisible = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or not divisible or np.prod(shape) < SMALLEST_SPLIT:
        return P()
    longest = max(divisible, key=lambda axis: shape[axis])
    return P(*[None] * longest, "fsdp")


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows become its share of global arrays."""
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def spread(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Rows that every process holds, all of them, become global arrays."""
    return {
        name: jax.make_array_from_callback(rows.shape, sharding, lambda index, rows=rows: rows[index])
        for name, rows in batch.items()
    }


def to_host(array: jax.Array) -> np.ndarray:
    """A global array as numpy, on every process."""
    return np.asarray(array if array.is_fully_addressable else multihost_utils.process_allgather(array, tiled=True))

"""Where arrays live: one mesh, one rule.

The mesh has three axes, `data`, `fsdp` and `tensor`, any of them 1.  Batches are split over data x fsdp.  Parameters,
their averages, gradients and the optimizer's moments are split over `fsdp` (Rajbhandari et al. 2020, "ZeRO"): each
array along its largest divisible axis, if it is worth the traffic.  What is split over `tensor` (Shoeybi et al. 2019)
is said by rows beside the network, (regular expression, axes); an axis called `scan` there is what a loop runs over,
and is never split: each turn of the loop would gather the whole.  One device is a mesh of one: there is one path.
"""

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

SMALLEST_SPLIT = 2**14  # elements; below this an all-gather costs more than the memory it saves
AXES = "data", "fsdp", "tensor"
ROWS = P(("data", "fsdp"))

Overrides = Sequence[tuple[str, tuple[str | None, ...]]]  # (end of a leaf's path, an axis of the mesh per axis)


def make_mesh(fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices as (data, fsdp, tensor), data being what is left.  Raises ValueError unless they multiply.

    Where devices are in several slices, which a slower network joins, `data` runs across them if they divide it.
    """
    devices = jax.devices() if devices is None else list(devices)
    count = len(devices)
    if min(fsdp, tensor) < 1 or count % (fsdp * tensor):
        raise ValueError(
            f"mesh.fsdp={fsdp} x mesh.tensor={tensor} does not divide the {count} devices; choose divisors of {count}"
        )
    shape = count // (fsdp * tensor), fsdp, tensor
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices > 1 and shape[0] % slices == 0:
        grid = mesh_utils.create_hybrid_device_mesh((shape[0] // slices, fsdp, tensor), (slices, 1, 1), devices)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data x fsdp."""
    return NamedSharding(mesh, ROWS)


def stacked_sharding(mesh: Mesh) -> NamedSharding:
    """The same of several batches, one after another: [n, B, ...]."""
    return NamedSharding(mesh, P(None, *ROWS))


def row_parts(mesh: Mesh) -> int:
    """Over how many parts a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which rows of a batch this process's devices hold, ascending: those that it has to read."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in indices]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, P())


def state_sharding(mesh: Mesh, abstract: Any, overrides: Overrides = ()) -> Any:
    """The sharding of every leaf of a tree of jax.ShapeDtypeStruct."""

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rows = (axes for pattern, axes in overrides if len(axes) == leaf.ndim and re.search(f"(^|/){pattern}$", name))
        return NamedSharding(mesh, _spec(leaf.shape, dict(mesh.shape), next(rows, (None,) * leaf.ndim)))

    return jax.tree_util.tree_map_with_path(place, abstract)


def on_host(shardings: Any, abstract: Any) -> Any:
    """The same places in the memory of the hosts; scalars stay on their devices."""
    return jax.tree.map(lambda s, a: s.with_memory_kind("pinned_host") if a.ndim else s, shardings, abstract)


def has_host_memory(mesh: Mesh) -> bool:
    """Whether the devices can compute with what is in the memory of their hosts."""
    return any(memory.kind == "pinned_host" for memory in mesh.local_devices[0].addressable_memories())


def _spec(shape: tuple[int, ...], parts: dict[str, int], given: tuple[str | None, ...]) -> P:
    split: list[str | None] = [
        axis if axis and parts.get(axis, 1) > 1 and size % parts[axis] == 0 else None
        for axis, size in zip(given, shape, strict=True)
    ]
    free = [i for i, size in enumerate(shape) if not split[i] and given[i] != "scan" and size % parts["fsdp"] == 0]
    if parts["fsdp"] > 1 and free and np.prod(shape) >= SMALLEST_SPLIT and "fsdp" not in split:
        split[max(free, key=lambda i: shape[i])] = "fsdp"
    while split and not split[-1]:
        split.pop()
    return P(*split)


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows become its share of global arrays."""
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def ahead(
    batches: Iterator[dict[str, np.ndarray]], calls: Iterable[int], mesh: Mesh
) -> Generator[dict[str, jax.Array]]:
    """So many batches for each call, [n, B, ...] on the devices; a thread reads those of the next one meanwhile."""
    with ThreadPoolExecutor(1) as reader:

        def read(n):
            return to_devices(stacked([next(batches) for _ in range(n)]), stacked_sharding(mesh))

        coming = (reader.submit(read, n) for n in calls)
        following = next(coming, None)
        while following:
            this, following = following, next(coming, None)  # asked for before this one is given
            yield this.result()


def stacked(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Batches, one after another: [n, ...]; of one alone nothing is copied."""
    if len(batches) == 1:
        return {name: rows[None] for name, rows in batches[0].items()}
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def spread(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Rows that every process holds, all of them, become global arrays."""
    return {
        name: jax.make_array_from_callback(rows.shape, sharding, lambda index, rows=rows: rows[index])
        for name, rows in batch.items()
    }


def to_host(array: jax.Array) -> np.ndarray:
    """A global array as numpy, on every process."""
    return np.asarray(array if array.is_fully_addressable else multihost_utils.process_allgather(array, tiled=True))

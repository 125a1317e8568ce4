"""What a compiled program costs on each device, read off the program: memory, collectives, arithmetic."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COLLECTIVES = "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}

# Bytes of memory of one chip or card, as its maker states them.
ACCELERATORS = {
    "a100-40": 40e9, "a100-80": 80e9, "h100": 80e9, "h200": 141e9, "b200": 180e9,
    "v4": 32e9, "v5e": 16e9, "v5p": 95e9, "v6e": 32e9,
}  # fmt: skip


def collectives(compiled: jax.stages.Compiled) -> dict[str, list[int]]:
    """The bytes that each collective of the program gives each device, by kind; one in a loop counts once."""
    found: dict[str, list[int]] = {kind: [] for kind in COLLECTIVES}
    for line in (compiled.as_text() or "").splitlines():
        called = re.match(rf"\s*(?:ROOT )?\S+ = (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(", line)
        if called:
            found[called[2]].append(_bytes(called[1], last=bool(called[3]) and called[2] != "all-reduce"))
    return found


def _bytes(shapes: str, *, last: bool) -> int:
    """Of 'f32[8,16]{1,0}' or of a tuple of such; of what an asynchronous one starts, the result alone."""
    sizes = [
        BYTES.get(dtype, 4) * int(np.prod([int(n) for n in dims.split(",") if n] or [1]))
        for dtype, dims in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes)
    ]
    return sizes[-1] if last and sizes else sum(sizes)


def state_bytes(target: Any) -> dict[str, int]:
    """Bytes on each device of every field of an abstract state with shardings."""
    return {field: sum(map(_held, jax.tree.leaves(tree))) for field, tree in target._asdict().items()}


def _held(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None
    size = 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.dtype(leaf.dtype).itemsize
    return int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * size


def memory(compiled: jax.stages.Compiled) -> Mapping[str, int]:
    """Bytes on each device: what comes in (the state, the batch) and what is made on the way."""
    plan = compiled.memory_analysis()
    if plan is None:  # some backends keep it to themselves
        return {}
    fresh = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return {"arguments": plan.argument_size_in_bytes, "temporary": plan.temp_size_in_bytes, "outputs": max(fresh, 0)}


def flops(lowered: jax.stages.Lowered) -> float:
    """Floating-point operations of a whole program, before it is split over devices; one in a loop counts once."""
    analysis = lowered.cost_analysis()
    return float(analysis["flops"]) if analysis else float("nan")

"""What a compiled program costs on each device, read off the program: memory, collectives, arithmetic."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

COLLECTIVES = "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


class Accelerator(NamedTuple):
    """One chip or card, as its maker states it."""

    kind: str  # a regular expression of jax's device_kind
    memory: float  # bytes
    flops: float  # of dense bfloat16 products, per second
    bandwidth: float  # of its memory, bytes per second
    link: float  # bytes per second that it sends to its neighbours: over NVLink, or both ways along one axis of a torus
    slice: int  # so many are joined by links
    network: float  # bytes per second that it sends beyond them


ACCELERATORS = {
    "a100-40": Accelerator("A100.*40GB", 40e9, 312e12, 1.555e12, 300e9, 8, 25e9),
    "a100-80": Accelerator("A100.*80GB", 80e9, 312e12, 2.039e12, 300e9, 8, 25e9),
    "h100": Accelerator("H100", 80e9, 989e12, 3.35e12, 450e9, 8, 50e9),
    "h200": Accelerator("H200", 141e9, 989e12, 4.8e12, 450e9, 8, 50e9),
    "b200": Accelerator("B200", 180e9, 2250e12, 7.7e12, 900e9, 8, 50e9),
    "v4": Accelerator("TPU v4", 32e9, 275e12, 1.2e12, 90e9, 4096, 6.25e9),
    "v5e": Accelerator("TPU v5( lite|e)", 16e9, 197e12, 0.82e12, 90e9, 256, 3.125e9),
    "v5p": Accelerator("TPU v5p?$", 95e9, 459e12, 2.765e12, 180e9, 8960, 6.25e9),
    "v6e": Accelerator("TPU v6( lite|e)", 32e9, 918e12, 1.64e12, 180e9, 256, 12.5e9),
}


def peak_flops(devices: Sequence[Any]) -> float:
    """FLOP/s of bfloat16 of all these devices together, 0 where their kind is not known."""
    known = [a.flops for a in ACCELERATORS.values() if re.search(a.kind, devices[0].device_kind)]
    return known[0] * len(devices) if known else 0.0


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


def equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Every equation of a traced program, inner ones included, and how often it runs: in a scan as often as that."""
    for equation in jaxpr.eqns:
        yield equation, times
        inside = times * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner, inside)


def flops(jaxpr: Any) -> float:
    """Floating-point operations of a traced program's products and convolutions; a scan counts as often as it runs."""
    total = 0.0
    for equation, times in equations(jaxpr):
        name, params, sizes = equation.primitive.name, equation.params, [v.aval.shape for v in equation.invars]
        if name == "dot_general":
            ((summed, _), _), out = params["dimension_numbers"], equation.outvars[0].aval
            total += times * 2 * out.size * np.prod([sizes[0][axis] for axis in summed])
        elif name == "conv_general_dilated":
            kernel, out = sizes[1], equation.outvars[0].aval
            total += times * 2 * out.size * np.prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]]
        elif name == "convolution":  # of nets/convolution.py: the kernel's outputs are its last axis
            total += times * 2 * equation.outvars[0].aval.size * np.prod(sizes[1][:-1])
    return float(total)

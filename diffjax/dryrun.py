"""What a run would cost, before it is paid for: the step is compiled for its mesh, and nothing is run.

Shapes stand for arrays, so neither parameters nor data are needed in memory.  The program is the one of the devices
that are here, or of as many simulated ones as are asked for; temporary memory is what this backend's compiler plans,
and another backend's may differ.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffjax import training
from diffjax.errors import InputError, unknown
from diffjax.experiment import Experiment, build
from diffjax.program import abstract_batch, flops_per_step, mesh_of, program
from diffjax.record import say
from diffjax.training.cost import ACCELERATORS, collectives, memory, state_bytes


def dry_run(config: Mapping[str, Any], *, devices: int = 0, accelerator: str = "") -> dict[str, Any]:
    """Print, and return, what a step of this config costs on each device: of those here, or of so many simulated ones.

    With `accelerator` also whether it fits that kind of device.  Raises InputError for whatever `train` would refuse
    before it compiles.
    """
    if accelerator and accelerator not in ACCELERATORS:
        raise unknown("accelerator", accelerator, ACCELERATORS)
    if devices:
        _simulate(devices)
    experiment = build(config)
    mesh = mesh_of(experiment.config)
    _, step, target = program(experiment, mesh)
    batch = abstract_batch(experiment, mesh)
    start = time.perf_counter()
    lowered = step.lower(target, batch)
    compiled = lowered.compile()
    found = {
        "mesh": dict(mesh.shape),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(target.params)),
        "compile_seconds": time.perf_counter() - start,
        "flops_per_step": flops_per_step(experiment),
        "state_bytes": state_bytes(target),
        "memory": dict(memory(compiled)),
        "collectives": {kind: sizes for kind, sizes in collectives(compiled).items() if sizes},
    }
    found["flops_per_example"] = found["flops_per_step"] / experiment.config["batch_size"]
    found["bytes_per_device"] = sum(found["memory"].values())
    if accelerator:
        found["fits"] = {accelerator: found["bytes_per_device"] <= ACCELERATORS[accelerator].memory}
    _show(experiment, target, found)
    return found


def _simulate(devices: int) -> None:
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", devices)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot simulate {devices} devices: {error}; ask for them in a process of their own"
        ) from error
    if jax.device_count() != devices:
        raise InputError(f"cannot simulate {devices} devices beside the {jax.device_count()} that are in use already")


def _show(experiment: Experiment, target: training.State, found: Mapping[str, Any]) -> None:
    say(json.dumps(experiment.config, indent=1))
    names = training.named(target.params)
    width = max(map(len, names))
    for name, leaf in names.items():
        spec = str(leaf.sharding.spec) if leaf.sharding else ""
        say(f"  {name:{width}s}  {leaf.dtype!s:9s} {str(list(leaf.shape)):22s} {spec}")
    axes = " x ".join(f"{axis} {size}" for axis, size in found["mesh"].items())
    say(f"mesh         {axes}, {np.prod(list(found['mesh'].values()))} x {jax.devices()[0].device_kind}")
    say(f"parameters   {found['parameters']:,}")
    say(f"arithmetic   {found['flops_per_step']:.3g} FLOP a step, {found['flops_per_example']:.3g} an example")
    say(f"compilation  {found['compile_seconds']:.1f} s")
    for field, size in found["state_bytes"].items():
        say(f"memory       {_mb(size)}  {field}, on each device")
    for name, size in found["memory"].items():
        say(f"memory       {_mb(size)}  {name}{' (state and batch)' if name == 'arguments' else ''}")
    for kind, sizes in found["collectives"].items():
        say(f"collectives  {_mb(sum(sizes))}  {len(sizes)} x {kind}, the largest {_mb(max(sizes)).strip()}")
    for name, fits in found.get("fits", {}).items():
        say(f"{'fits' if fits else 'DOES NOT FIT'} {name}: {_mb(found['bytes_per_device']).strip()} of "
            f"{_mb(ACCELERATORS[name].memory).strip()}")  # fmt: skip


def _mb(size: float) -> str:
    return f"{size / 1e6:12,.3f} MB"

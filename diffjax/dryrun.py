"""What a run would cost, before it is paid for: the step is compiled for its mesh, and nothing is run.

Shapes stand for arrays, so neither parameters nor data are needed in memory.  The program is the one of the devices
that are here, or of as many simulated ones as are asked for; temporary memory is what this backend's compiler plans,
and another backend's may differ.
"""

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from diffjax import training
from diffjax.errors import InputError, unknown
from diffjax.experiment import Experiment, build
from diffjax.program import abstract_call, flops_per_step, mesh_of, program
from diffjax.record import say
from diffjax.training.cost import ACCELERATORS, collectives, memory, state_bytes
from diffjax.training.roofline import AGAIN, Plan, Work, terms


def dry_run(config: Mapping[str, Any], *, devices: int = 0, accelerator: str = "") -> dict[str, Any]:
    """Print, and return, what a step of this config costs on each device: of those here, or of so many simulated ones.

    With `accelerator` also whether it fits that kind of device.  Raises InputError for whatever `train` would refuse
    before it compiles.
    """
    _prepare(devices, accelerator)
    experiment = build(config)
    found, target = _compiled(experiment)
    found["flops_per_step"] = flops_per_step(experiment)
    found["flops_per_example"] = found["flops_per_step"] / experiment.config["batch_size"]
    if accelerator:
        found["fits"] = {accelerator: found["bytes_per_device"] <= ACCELERATORS[accelerator].memory}
    _show(experiment, target, found)
    return found


def fit(config: Mapping[str, Any], *, devices: int = 0, accelerator: str) -> dict[str, Any]:
    """The changes to a config, {"mesh": ..., "memory": ...}, that make it fit an accelerator and lose least time.

    Every mesh, rematerialisation and number of parts is a candidate.  They are compiled in the order of their predicted
    time (training/roofline.py) until one fits; those whose state alone is too large are not.  Prints what was tried.
    Raises InputError if nothing fits.
    """
    _prepare(devices, accelerator)
    chip, plain = ACCELERATORS[accelerator], build(config)
    work, tried = _work(plain), []
    say(f"looking for what fits {accelerator}, of {_mb(chip.memory).strip()} each, in the least time predicted")
    # What tensor sends of activations is not known before it is compiled: it comes last.
    for plan in sorted(_plans(plain), key=lambda plan: (plan.tensor, sum(terms(work, plan, chip).values()), plan)):
        changes = {
            "mesh": {"fsdp": plan.fsdp, "tensor": plan.tensor},
            "memory": {**plain.config["memory"], "accumulate": plan.accumulate, "remat": plan.remat},
        }
        size = work.state / (plan.fsdp * plan.tensor)
        if size < chip.memory:
            try:
                size = _compiled(build({**plain.config, **changes}, source=plain.source))[0]["bytes_per_device"]
            except InputError:  # it does not split so, or this net has nothing to compute again
                continue
        flags = " ".join(f"--config.{part}.{key}={value}" for part in changes for key, value in changes[part].items())
        seconds = sum(terms(work, plan, chip).values())
        say(f"{'fits' if size <= chip.memory else 'too large':10s} {_mb(size)}  {1e3 * seconds:10.3f} ms  {flags}")
        tried.append((plan, size))
        if size <= chip.memory:
            return changes
    least = min(size for _, size in tried)
    raise InputError(
        f"nothing fits {accelerator}: the least of {len(tried)} plans takes {_mb(least).strip()} on each device; use "
        f"more of them, a smaller batch or a smaller net"
    )


def _plans(experiment: Experiment) -> Iterator[Plan]:
    """Every way to spread a step over the devices that are here."""
    chips, rows = jax.device_count(), experiment.config["batch_size"]
    divisors = [n for n in range(1, chips + 1) if chips % n == 0]
    wide = divisors if experiment.splits else [1]  # a net without rows for tensor has nothing to split there
    for fsdp, tensor, remat in itertools.product(divisors, wide, AGAIN):
        if chips % (fsdp * tensor):
            continue
        parts = chips // tensor
        accumulate = 1
        while rows % (parts * accumulate) == 0:
            yield Plan(chips, fsdp, tensor, remat, accumulate)
            accumulate *= 2


def _work(experiment: Experiment) -> Work:
    _, _, target = program(experiment, mesh_of({**experiment.config, "mesh": {"fsdp": 1, "tensor": 1}}))
    size = {field: sum(leaf.size * 4 for leaf in jax.tree.leaves(getattr(target, field))) for field in target._fields}
    return Work(flops_per_step(experiment), size["params"], size["params"] + size["ema"] + size["opt"])


def _compiled(experiment: Experiment) -> tuple[dict[str, Any], training.State]:
    """What is known of the compiled step, and the abstract state."""
    mesh = mesh_of(experiment.config)
    _, step, target = program(experiment, mesh)
    start = time.perf_counter()
    compiled = step.lower(target, abstract_call(experiment, mesh)).compile()
    seconds, state = time.perf_counter() - start, state_bytes(target)
    used = dict(memory(compiled))
    away = state["opt"] if experiment.config["memory"]["offload"] and jax.default_backend() == "cpu" else 0
    found = {
        "mesh": dict(mesh.shape),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(target.params)),
        "compile_seconds": seconds,
        "state_bytes": state,
        "memory": used,
        "bytes_per_device": sum(used.values()) - away,  # simulated devices count their host's memory as their own
        "collectives": {kind: sizes for kind, sizes in collectives(compiled).items() if sizes},
    }
    return found, target


def _prepare(devices: int, accelerator: str) -> None:
    if accelerator and accelerator not in ACCELERATORS:
        raise unknown("accelerator", accelerator, ACCELERATORS)
    if devices:
        _simulate(devices)


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
        say(f"memory       {_mb(size)}  {name}{' (state and batches)' if name == 'arguments' else ''}")
    for kind, sizes in found["collectives"].items():
        say(f"collectives  {_mb(sum(sizes))}  {len(sizes)} x {kind}, the largest {_mb(max(sizes)).strip()}")
    for name, fits in found.get("fits", {}).items():
        say(f"{'fits' if fits else 'DOES NOT FIT'} {name}: {_mb(found['bytes_per_device']).strip()} of "
            f"{_mb(ACCELERATORS[name].memory).strip()}")  # fmt: skip


def _mb(size: float) -> str:
    return f"{size / 1e6:12,.3f} MB"

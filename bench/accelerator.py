"""Training and sampling of whole networks on the accelerator at hand, in bfloat16 with float32 weights.

    python -m bench accelerator
    python -m bench accelerator --python .venv-peers/bin/python     and the same steps in torch, compiled

Each network has a process of its own, so that its peak of memory is its own.  A step is that of train.py, averages and
metrics included.  MFU is counted products and convolutions over time and the maker's peak; "loop" is a sampler's time
over that of as many calls of the network, dispatched one behind the other.  The last line of each is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from bench.engines.duel import Engine, fight
from diffjax import training
from diffjax.data import Source, absent
from diffjax.diffusion.grids import grid
from diffjax.experiment import build
from diffjax.program import abstract_call, flops_per_step, mesh_of, program
from diffjax.sampler import sampler
from diffjax.training.cost import memory, peak_flops, state_bytes

ROWS = {  # config, shape of the data, classes, batch, changes of the network
    "dit_s": ("dit_xl_256", (32, 32, 4), 1000, 256, dict(size="S")),
    "dit_b": ("dit_xl_256", (32, 32, 4), 1000, 256, dict(size="B")),
    "dit_xl": ("dit_xl_256", (32, 32, 4), 1000, 128, dict()),
    "adm_64": ("imagenet64", (64, 64, 3), 1000, 64, dict()),
    "edm2_xs": ("edm2_xs_512", (64, 64, 4), 1000, 64, dict()),
    "digits": ("digits", (8, 8, 1), 10, 64, dict()),  # to try the bench itself
}
ROUNDS, STEPS = 7, 10


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench accelerator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = list(ROWS)[:-1]
    parser.add_argument("--only", nargs="+", default=rows, choices=ROWS, help=f"(default: {' '.join(rows)})")
    parser.add_argument("--batch", type=int, default=0, help="rows of a step (default: each network's own)")
    parser.add_argument("--remat", default="none", help="memory.remat (default: none)")
    parser.add_argument("--python", help="of an environment with torch, for the same work there")
    parser.add_argument("--here", action="store_true", help="run one network in this process")
    options = parser.parse_args(arguments)
    if options.here:
        print(json.dumps(measured(options.only[0], options.batch, options.remat)))
        return
    for name in options.only:
        command = [sys.executable, "-m", "bench", "accelerator", "--here", "--only", name, "--remat", options.remat]
        subprocess.run([*command, "--batch", str(options.batch)], check=True)
    if options.python:
        beside_torch(options.python)


def measured(name: str, rows: int, remat: str) -> dict:
    """What a network costs to train and to sample from; prints it too."""
    config_name, shape, classes, batch_size, net = ROWS[name]
    config = import_module(f"configs.{config_name}").get_config().to_dict()
    config |= {"batch_size": rows or batch_size, "net": config["net"] | net}
    config["memory"] |= {"remat": remat}
    experiment = build(config, source=Source(absent, 10**6, shape, classes))
    mesh = mesh_of(config)
    start, step, target = program(experiment, mesh)
    began = time.perf_counter()
    compiled = step.lower(target, abstract_call(experiment, mesh)).compile()
    found = {"network": name, "device": jax.devices()[0].device_kind, "devices": mesh.size, "batch": batch_size}
    found |= {"batch": config["batch_size"], "remat": remat, "compile_s": time.perf_counter() - began}
    found["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(target.params))
    found["planned_bytes"] = sum(memory(compiled).values())
    found["state_bytes"] = sum(state_bytes(target).values())

    draw = np.random.default_rng(0)
    host = {"x": draw.standard_normal((config["batch_size"], *shape), np.float32)}
    host["label"] = draw.integers(0, classes, config["batch_size"], np.int32)
    state = start(jax.random.key(0))
    batch = training.to_devices(training.stacked([host]), training.stacked_sharding(mesh))
    seconds = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        for _ in range(STEPS):
            state, metrics = compiled(state, batch)
        jax.block_until_ready(metrics)
        seconds.append((time.perf_counter() - began) / STEPS)
    found["step_s"] = median(seconds[1:])
    found["images_per_s"] = config["batch_size"] / found["step_s"]
    peak, counted = peak_flops(mesh.devices.flatten()), flops_per_step(experiment)
    found["tflops_per_s"] = counted / found["step_s"] / 1e12
    found["mfu"] = counted / found["step_s"] / peak if peak else None
    used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    found["peak_bytes"], found["planned_over_peak"] = used, found["planned_bytes"] / used if used else None
    for size in (1, 64):
        found[f"loop_{size}"], found[f"sample_{size}_s"] = _sampling(experiment, state.params, size)
    print(
        "  ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in found.items()
        )
    )
    return found


def _sampling(experiment, params, rows: int, steps: int = 50) -> tuple[float, float]:
    """(the loop of 50 DDIM steps / 50 calls of the network, its seconds), without guidance."""
    run = jax.jit(sampler(experiment, {"name": "ddim"}, guided=False))
    keys, labels = jax.random.split(jax.random.key(1), rows), jnp.zeros(rows, jnp.int32)
    x, t, alone = jnp.zeros((rows, *experiment.source.shape)), jnp.full(rows, 0.5), jax.jit(experiment.denoise)

    def loop():
        return run(params, keys, grid(steps), labels, jnp.float32(1), {})

    def calls():
        for _ in range(steps):
            answer = alone(params, x, t, labels)
        return answer

    rounds = []
    for _ in range(ROUNDS + 1):
        pair = []
        for work in (loop, calls):
            began = time.perf_counter()
            jax.block_until_ready(work())
            pair.append(time.perf_counter() - began)
        rounds.append(pair)
    return median(a / b for a, b in rounds[1:]), median(a for a, _ in rounds[1:])


def beside_torch(python: str) -> None:
    """Training steps of DiT and of the UNet against torch's, compiled, on the same device in turns."""
    cores = os.cpu_count() or 1
    ours, theirs = Engine("ours", cores=cores), Engine("peer_torch", cores=cores, python=python)
    same = dict(step=True, half=True, compiled=True)
    for case, options in {"dit": dict(batch=64, size="XL", patch=2, **same), "unet": dict(batch=256, **same)}.items():
        for side in (ours, theirs):
            side.ask(build=case, options=options)  # what a first build allocates and tunes is not of the duel
        duel = fight(ours, theirs, case, options, rounds=ROUNDS, times=STEPS)
        print(f"{case} {options}: ours / torch, compiled = {duel.ratio:.3f}, spread {duel.spread:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

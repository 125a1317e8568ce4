"""From the start of a process to the end of its first training step: DiT-S/8, batch 16, float32.

    python -m bench first_use --python .venv-peers/bin/python

Ours with an empty compilation cache and with a full one; torch eager and compiled, each compiled run with an empty
cache too.  Processes take turns; medians of the rounds, and of their ratios.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEP = """
import time
from bench.engines import {engine} as engine
start = time.perf_counter()
engine.dit(batch=16, size="S", patch=8, step=True, compiled={compiled}).run()
print(time.perf_counter() - start)
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench first_use", description=__doc__)
    parser.add_argument("--python", default=".venv-peers/bin/python", help="of the peers' environment (make parity)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    options = parser.parse_args(arguments)
    ours, theirs = sys.executable, options.python
    with tempfile.TemporaryDirectory() as folder:
        full, empty = Path(folder) / "full", Path(folder) / "empty"
        started(ours, "ours", True, full)
        sides = {
            "ours, empty cache": (ours, "ours", True, empty),
            "ours, full cache": (ours, "ours", True, full),
            "torch, eager": (theirs, "peer_torch", False, empty),
            "torch, compiled": (theirs, "peer_torch", True, empty),
        }
        rounds = np.array([[started(*side) for side in sides.values()] for _ in range(options.rounds)])
    for name, seconds in zip(sides, np.median(rounds, axis=0), strict=True):
        print(f"first_use {name:18s} {seconds[0]:6.2f} s, of which after imports {seconds[1]:6.2f} s")
    cold, warm, _, compiled = rounds.transpose(1, 0, 2)
    for name, (one, other) in {
        "full / empty cache": (warm, cold),
        "empty cache / torch, compiled": (cold, compiled),
    }.items():
        whole, after = np.median(one / other, axis=0)
        print(f"first_use ours, {name}: {whole:.3f}, after imports {after:.3f}")


def started(python: str, engine: str, compiled: bool, cache: Path) -> tuple[float, float]:
    """Seconds of a process, and those after its imports; a cache called empty is."""
    if cache.name == "empty":
        shutil.rmtree(cache, ignore_errors=True)
    caches = {"JAX_COMPILATION_CACHE_DIR": str(cache), "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch")}
    caches |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    start = time.perf_counter()
    code = STEP.format(engine=engine, compiled=compiled)
    where = Path(__file__).parents[1]
    told = subprocess.run([python, "-c", code], check=True, env=os.environ | caches, cwd=where, capture_output=True)
    return time.perf_counter() - start, float(told.stdout)

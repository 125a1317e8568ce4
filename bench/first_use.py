"""From the start of a process to the end of its first training step, batch 16, float32.

    python -m bench first_use --python .venv-peers/bin/python

Ours with an empty compilation cache and with a full one; torch eager and compiled, each compiled run with an empty
cache too.  Processes take turns; medians of the rounds, and of their ratios.  "Made" is what follows the imports less
a second step: parameters, tracing and compilation.
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

from bench.peers import installed

CASES = {"dit": dict(batch=16, size="S", patch=8, step=True), "unet": dict(batch=16, step=True)}
STEP = """
import time
from bench.engines import {engine} as engine
start = time.perf_counter()
case = engine.{case}(**{options})
case.run()
ended, first = time.time(), time.perf_counter()
case.run()
print(ended, first - start, 2 * first - start - time.perf_counter())
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench first_use", description=__doc__)
    parser.add_argument("--python", default=".venv-peers/bin/python", help="of the peers' environment (make parity)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--case", default="dit", choices=CASES, help="DiT-S/8 or the UNet of 6.5 M (default: dit)")
    options = parser.parse_args(arguments)
    ours, theirs = sys.executable, options.python
    with tempfile.TemporaryDirectory() as folder:
        full, empty = Path(folder) / "full", Path(folder) / "empty"
        started(ours, "ours", options.case, full, True)
        sides = {
            "ours, empty cache": (ours, "ours", options.case, empty, True),
            "ours, full cache": (ours, "ours", options.case, full, True),
        }
        if installed(theirs, "diffusers"):
            sides["torch, eager"] = (theirs, "peer_torch", options.case, empty, False)
            sides["torch, compiled"] = (theirs, "peer_torch", options.case, empty, True)
        else:
            print(f"skipped: torch, which {theirs} does not have (make parity)")
        rounds = np.array([[started(*side) for side in sides.values()] for _ in range(options.rounds)])
    for name, seconds, spread in zip(sides, np.median(rounds, 0), rounds.max(0) / rounds.min(0), strict=True):
        whole, after, made = seconds
        print(
            f"first_use {name:18s} {whole:6.2f} s, after imports {after:6.2f}, made {made:6.2f}, spread {spread[0]:.2f}"
        )
    cold, warm, *torch = rounds.transpose(1, 0, 2)
    pairs = {"full / empty cache": (warm, cold)} | (
        {"empty cache / torch, compiled": (cold, torch[1])} if torch else {}
    )
    for name, (one, other) in pairs.items():
        whole, after, made = np.median(one / other, axis=0)
        print(f"first_use ours, {name}: {whole:.3f}, after imports {after:.3f}, made {made:.3f}")


def started(python: str, engine: str, case: str, cache: Path, compiled: bool) -> tuple[float, ...]:
    """Seconds to the end of the first step: of the process, after its imports, less a second step.

    A cache called empty is.
    """
    if cache.name == "empty":
        shutil.rmtree(cache, ignore_errors=True)
    caches = {"JAX_COMPILATION_CACHE_DIR": str(cache), "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch")}
    caches |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    code = STEP.format(engine=engine, case=case, options=CASES[case] | {"compiled": compiled})
    began, where = time.time(), Path(__file__).parents[1]
    told = subprocess.run([python, "-c", code], check=True, env=os.environ | caches, cwd=where, capture_output=True)
    ended, *others = map(float, told.stdout.split())
    return ended - began, *others

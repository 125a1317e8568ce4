"""Ours beside other libraries on the same work: the same architecture, batch, precision (float32) and optimizer.

    python -m bench peers --python .venv-peers/bin/python
    PYTHONPATH=hackable_diffusion python -m bench peers --flax .venv-flax/bin/python

Each row is a duel of two processes (bench/engines/duel.py), on one core and on two.  A ratio is ours / theirs in time;
beside FlaxDiff and hackable_diffusion, whose networks differ a little, in time per GFLOP of a forward pass.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from bench.engines.duel import STEADY, Engine, fight, table

FLAX_LIKE = {"flaxdiff", "hackable_diffusion"}
ENGINES = {  # the package that must be there
    "diffusers": "peer_torch",
    "flaxdiff": "peer_flaxdiff",
    "hackable_diffusion": "peer_hackable",
}


class Row(NamedTuple):
    """A duel; `wanted` ratios on one core and on two, so many repetitions a round."""

    what: str
    peer: str
    case: str
    options: dict
    wanted: tuple[float | None, float | None] = (None, None)
    times: int = 1


UNET, S8, S4 = dict(batch=16), dict(batch=16, size="S", patch=8), dict(batch=16, size="S", patch=4)
DDIM, LOOP = dict(solver="ddim", steps=50, batch=4), dict(solver="dpmpp_2m", steps=50, batch=4)
FORWARD, STEP, COMPILED, FREE = dict(step=False), dict(step=True), dict(compiled=True), dict(net="free")
ROWS = [
    Row("UNet 6.5 M, batch 16, forward", "diffusers", "unet", UNET | FORWARD, (0.95, 1.15)),
    Row("UNet 6.5 M, batch 16, training step", "diffusers", "unet", UNET | STEP, (1.05, 1.20)),
    Row("DiT-S/8, batch 16, forward", "diffusers", "dit", S8 | FORWARD, (0.65, 0.65), 3),
    Row("DiT-S/8, batch 16, training step", "diffusers", "dit", S8 | STEP, (1.0, 1.0), 2),
    Row("DiT-S/4, batch 16, forward", "diffusers", "dit", S4 | FORWARD, (0.75, 0.75), 2),
    Row("DiT-S/4, batch 16, training step", "diffusers", "dit", S4 | STEP, (1.0, 1.0)),
    Row("DDIM, 50 steps, free network", "diffusers", "sampler", DDIM | FREE, (0.05, 0.05), 9),
    Row("DPM-Solver++(2M), 50 steps, free network", "diffusers", "sampler", LOOP | FREE, (0.06, 0.06), 9),
    Row("DDIM, 50 steps, UNet", "diffusers", "sampler", DDIM | dict(net="unet")),
    Row("DPM-Solver++(2M), 50 steps, UNet", "diffusers", "sampler", LOOP | dict(net="unet")),
    Row("predictor-corrector, 1000 steps, free network", "diffusers", "predictor_corrector",
        dict(steps=1000, batch=4), (0.8, 0.8)),
    Row("UNet 6.5 M, compiled, forward", "diffusers", "unet", UNET | FORWARD | COMPILED),
    Row("UNet 6.5 M, compiled, training step", "diffusers", "unet", UNET | STEP | COMPILED),
    Row("DiT-S/8, compiled, forward", "diffusers", "dit", S8 | FORWARD | COMPILED, times=3),
    Row("DiT-S/8, compiled, training step", "diffusers", "dit", S8 | STEP | COMPILED, times=2),
    *(Row("DDIM, 50 steps, free network", peer, "sampler", DDIM | FREE, (wanted, wanted), 5)
      for peer, wanted in (("flaxdiff", 0.003), ("hackable_diffusion", 0.03))),
    *(Row(f"UNet, batch 16, {what}, per GFLOP", peer, "unet", UNET | step, (0.8, 0.8))
      for peer in ("flaxdiff", "hackable_diffusion") for what, step in (("forward", FORWARD), ("training step", STEP))),
    Row("DiT-S/8, batch 16, forward, per GFLOP", "flaxdiff", "dit", S8 | FORWARD, (0.8, 0.8), 3),
    Row("DiT-S/8, batch 16, training step, per GFLOP", "flaxdiff", "dit", S8 | STEP, (0.8, 0.8), 2),
]  # fmt: skip
HEADER = ("what", "beside", "cores", "ours", "theirs", "ours / theirs", "wanted", "spread")
HEADER += ("first use: ours, theirs", "temporaries: ours, theirs")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=".venv-peers/bin/python", help="of an environment with torch (make parity)")
    parser.add_argument("--flax", default=".venv-flax/bin/python", help="of one with FlaxDiff (bench/README.md)")
    parser.add_argument("--rounds", type=int, default=7, help="of each duel (default: 7)")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="how many each side has (default: 1 2)")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--beside", nargs="+", default=list(ENGINES), choices=ENGINES, help="(default: all)")
    parser.add_argument("--check", action="store_true", help="fail where a wanted ratio is missed, or the machine busy")
    options = parser.parse_args(arguments)
    print(f"load before: {os.getloadavg()[0]:.2f}")
    lines, failed = [], []
    for peer in options.beside:
        python = options.flax if peer in FLAX_LIKE else options.python
        chosen = [row for row in ROWS if row.peer == peer and options.only in row.what]
        if chosen and not installed(python, peer):
            print(f"skipped: {len(chosen)} rows beside {peer}, which {python} does not have (bench/README.md)")
            continue
        for cores in options.cores if chosen else ():
            found = duels(chosen, cores, python, options.rounds)
            lines += [line for line, _ in found]
            failed += [miss for _, miss in found if miss]
    print(table(HEADER, lines))
    if options.check and failed:
        sys.exit("error: missed or unsteady: " + "; ".join(failed))


def installed(python: str, package: str) -> bool:
    find = f"import sys, importlib.util; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return Path(python).exists() and subprocess.run([python, "-c", find], check=False).returncode == 0


def duels(rows: list[Row], cores: int, python: str, rounds: int) -> list[tuple[tuple[str, ...], str]]:
    """(line, what it misses) of rows beside one peer."""
    sides = Engine("ours", cores=cores), Engine(ENGINES[rows[0].peer], cores=cores, python=python)
    print(*(f"{name} {version}" for side in sides for name, version in side.hello["versions"].items()))
    found = []
    for row in tqdm(rows, unit="duel"):
        duel = fight(*sides, row.case, row.options, rounds=rounds, times=row.times)
        wanted = row.wanted[min(cores, 2) - 1]
        bad = duel.spread > STEADY or (wanted and duel.ratio > wanted)
        miss = f"{row.what}, {cores} cores: {duel.ratio:.3f}, spread {duel.spread:.2f}" if bad else ""
        found.append((line(row, cores, duel, wanted), miss))
        tqdm.write("  ".join(found[-1][0]))
    for side in sides:
        side.close()
    return found


def line(row: Row, cores: int, duel, wanted: float | None) -> tuple[str, ...]:
    """A row of the table.  Temporaries are what a compiler plans; torch has no plan to compare with."""
    ours, theirs = duel.facts
    same = ours.get("parameters") == theirs.get("parameters")
    assert same or row.peer in FLAX_LIKE, f"{row.what}: not the same network: {ours}, {theirs}"
    plans = [f"{side['temporaries']:.0f} MB" for side in (ours, theirs) if "temporaries" in side]
    return (
        row.what, row.peer, str(cores), f"{min(duel.ours) * 1e3:.2f} ms", f"{min(duel.theirs) * 1e3:.2f} ms",
        f"{duel.ratio:.4f}", f"{wanted}" if wanted else "", f"{duel.spread:.2f}",
        f"{ours['built'] + ours['first']:.1f} s, {theirs['built'] + theirs['first']:.1f} s", ", ".join(plans),
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])

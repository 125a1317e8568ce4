"""Ours beside torch and diffusers on the same work: the same architecture, batch, precision (float32) and optimizer.

    python -m bench peers --python .venv-peers/bin/python

Each row is a duel of two processes (bench/engines/duel.py), on one core and on two.  A ratio is ours / theirs in time.
"""

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from bench.engines.duel import STEADY, Engine, fight, table

# what, case, options, wanted ratio on one core and on two, repetitions a round
ROWS = [
    ("UNet 6.5 M, batch 16, forward", "unet", dict(batch=16, step=False), (0.95, 1.15), 1),
    ("UNet 6.5 M, batch 16, training step", "unet", dict(batch=16, step=True), (1.05, 1.20), 1),
    ("DiT-S/8, batch 16, forward", "dit", dict(batch=16, size="S", patch=8, step=False), (0.65, 0.65), 3),
    ("DiT-S/8, batch 16, training step", "dit", dict(batch=16, size="S", patch=8, step=True), (1.0, 1.0), 2),
    ("DiT-S/4, batch 16, forward", "dit", dict(batch=16, size="S", patch=4, step=False), (0.75, 0.75), 2),
    ("DiT-S/4, batch 16, training step", "dit", dict(batch=16, size="S", patch=4, step=True), (1.0, 1.0), 1),
    ("DDIM, 50 steps, free network", "sampler", dict(solver="ddim", steps=50, batch=4, net="free"), (0.05, 0.05), 9),
    ("DPM-Solver++(2M), 50 steps, free network", "sampler",
     dict(solver="dpmpp_2m", steps=50, batch=4, net="free"), (0.06, 0.06), 9),
    ("DDIM, 50 steps, UNet", "sampler", dict(solver="ddim", steps=50, batch=4, net="unet"), (None, None), 1),
    ("DPM-Solver++(2M), 50 steps, UNet", "sampler",
     dict(solver="dpmpp_2m", steps=50, batch=4, net="unet"), (None, None), 1),
    ("predictor-corrector, 1000 steps, free network", "predictor_corrector",
     dict(steps=1000, batch=4), (0.8, 0.8), 1),
]  # fmt: skip
HEADER = (
    "what",
    "cores",
    "ours",
    "theirs",
    "ours / theirs",
    "wanted",
    "spread",
    "first use: ours, theirs",
    "temporaries, ours",
)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench peers", description=__doc__)
    parser.add_argument("--python", default=".venv-peers/bin/python", help="of the peers' environment (make parity)")
    parser.add_argument("--rounds", type=int, default=7, help="of each duel (default: 7)")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="how many each side has (default: 1 2)")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--check", action="store_true", help="fail where a wanted ratio is missed, or the machine busy")
    options = parser.parse_args(arguments)
    if not Path(options.python).exists():
        sys.exit(f"error: there is no {options.python}; make parity makes it, or name one with torch by --python")
    print(f"load before: {os.getloadavg()[0]:.2f}")
    lines, failed = [], []
    chosen = [row for row in ROWS if options.only in row[0]]
    with tqdm(total=len(chosen) * len(options.cores), unit="duel") as bar:
        for i, cores in enumerate(options.cores):
            sides = Engine("ours", cores=cores), Engine("peer_torch", cores=cores, python=options.python)
            if not i:
                print(*(f"{name} {version}" for side in sides for name, version in side.hello["versions"].items()))
            for name, case, how, wanted, times in chosen:
                duel = fight(*sides, case, how, rounds=options.rounds, times=times)
                target = wanted[min(cores, 2) - 1]
                lines.append(line(name, cores, duel, target))
                tqdm.write("  ".join(lines[-1]))
                bar.update()
                if duel.spread > STEADY or (target and duel.ratio > target):
                    failed.append(f"{name}, {cores} cores: {duel.ratio:.3f}, spread {duel.spread:.2f}")
            for side in sides:
                side.close()
    print(table(HEADER, lines))
    if options.check and failed:
        sys.exit("error: missed or unsteady: " + "; ".join(failed))


def line(name, cores, duel, target) -> tuple[str, ...]:
    """A row of the table.  Temporaries are what the compiler plans; an eager step has no plan to compare with."""
    ours, theirs = duel.facts
    assert ours.get("parameters") == theirs.get("parameters"), f"{name}: not the same network: {ours}, {theirs}"
    return (
        name, str(cores), f"{min(duel.ours) * 1e3:.2f} ms", f"{min(duel.theirs) * 1e3:.2f} ms", f"{duel.ratio:.3f}",
        f"{target}" if target else "", f"{duel.spread:.2f}",
        f"{ours['built'] + ours['first']:.1f} s, {theirs['built'] + theirs['first']:.1f} s",
        f"{ours['temporaries']:.0f} MB" if "temporaries" in ours else "",
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])

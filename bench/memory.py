"""Memory of a training step beside torch: what a process grows by in its first step, gradients included.

    python -m bench memory --python .venv-peers/bin/python

A fresh process each.  Ours holds its optimizer's state before the step, and gives it away in it; torch makes its own in
the step, so those two arrays for each parameter are taken off.  "Planned" is what XLA says that ours will need.
"""

import argparse
from statistics import median

from bench.engines.duel import Engine, table
from bench.peers import installed

ROWS = {  # what: case, options, wanted ratio
    "DiT-S/2, batch 8": ("dit", dict(batch=8, size="S", patch=2, step=True), 0.45),
    "UNet 6.5 M, batch 16": ("unet", dict(batch=16, step=True), 0.8),
}
HEADER = (
    "what",
    "ours, planned",
    "ours, grown",
    "torch, grown",
    "planned / grown",
    "grown / grown",
    "wanted",
    "spread",
)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench memory", description=__doc__)
    parser.add_argument("--python", default=".venv-peers/bin/python", help="of an environment with torch (make parity)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side (default: 3)")
    options = parser.parse_args(arguments)
    if not installed(options.python, "diffusers"):
        print(f"skipped: memory beside torch, which {options.python} does not have (make parity)")
        return
    lines = []
    for what, (case, how, wanted) in ROWS.items():
        ours = [first_step("ours", case, how) for _ in range(options.rounds)]
        theirs = [first_step("peer_torch", case, how, python=options.python) for _ in range(options.rounds)]
        planned, grown = ours[0]["temporaries"], [facts["grown"] for facts in ours]
        other = [facts["grown"] - 2 * 4 * facts["parameters"] / 2**20 for facts in theirs]
        ratios = planned / median(other), median(grown) / median(other)
        spread = max(max(side) / min(side) for side in (grown, other))
        megabytes = [f"{number:.0f} MB" for number in (planned, median(grown), median(other))]
        lines.append((what, *megabytes, *(f"{ratio:.3f}" for ratio in ratios), str(wanted), f"{spread:.2f}"))
    print(table(HEADER, lines))


def first_step(engine: str, case: str, options: dict, **where) -> dict:
    side = Engine(engine, cores=1, **where)
    facts = side.ask(build=case, options=options)
    side.close()
    return facts

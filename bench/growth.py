"""How time grows: exponents, by least squares on logarithms, and the bands that they should stay in.

    taskset -c 0 python -m bench growth

Sizes take turns in every round; an exponent is the median of the rounds'.  That programs and their memory do not grow
with steps or depth is tested: tests/test_model.py, tests/laws/test_sampling.py, tests/nets/test_dit.py.
"""

import argparse
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.engines import ours
from bench.engines.duel import STEADY, table
from bench.engines.serve import Case, seconds


class Law(NamedTuple):
    """`make(size)` is timed at every size."""

    what: str
    sizes: tuple[int, ...]
    make: Callable[[int], Case]
    band: tuple[float, float]


def unet(step: bool):
    return lambda batch: ours.unet(batch=batch, step=step)


def dit(step: bool):
    return lambda batch: ours.dit(batch=batch, size="S", patch=8, step=step)


NET = dict(batch=4, net="dit")  # 4 layers of width 256 on 64 patches
BATCHES, BAND = (1, 4, 16), (0.85, 1.05)
LAWS = [
    Law("DDIM with a DiT, steps", (10, 50, 250), lambda n: ours.sampler(solver="ddim", steps=n, **NET), (0.95, 1.05)),
    Law("UNet 6.5 M forward, batch", BATCHES, unet(False), BAND),
    Law("UNet 6.5 M training step, batch", BATCHES, unet(True), BAND),
    Law("DiT-S/8 forward, batch", BATCHES, dit(False), BAND),
    Law("DiT-S/8 training step, batch", BATCHES, dit(True), BAND),
    Law("DiT-S/8 training step, batch 16, depth", (6, 12, 24),
        lambda depth: ours.dit(batch=16, size="S", patch=8, step=True, depth=depth), (0.95, 1.1)),
]  # fmt: skip
HEADER = ("what, against", "sizes", "ms", "exponent", "band", "spread")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    parser.add_argument("--only", default="", help="laws whose name contains this")
    options = parser.parse_args(arguments)
    print(f"load before: {os.getloadavg()[0]:.2f}")
    lines = []
    for law in LAWS:
        if options.only in law.what:
            rounds = timed([law.make(size) for size in law.sizes], options.rounds)
            lines.append(line(law, rounds))
            print("  ".join(lines[-1]), flush=True)
    print(table(HEADER, lines))
    if options.only in "marginal step":
        print(marginal_step(options.rounds))


def timed(cases: list[Case], rounds: int) -> np.ndarray:
    """Seconds [rounds, cases], each warmed up before."""
    for case in cases:
        case.run()
    return np.array([[seconds(case.run) for case in cases] for _ in range(rounds)])


def line(law: Law, rounds: np.ndarray) -> tuple[str, ...]:
    exponent = np.median(np.polyfit(np.log(law.sizes), np.log(rounds).T, 1)[0])
    low, high = law.band
    kept = "" if low <= exponent <= high else ", missed"
    spread = np.max(rounds.max(0) / rounds.min(0))
    times = ", ".join(f"{1e3 * t:.3g}" for t in np.median(rounds, 0))
    unsteady = ", unsteady" if spread > STEADY else ""
    return (
        law.what, ", ".join(map(str, law.sizes)), times, f"{exponent:.3f}", f"{low} to {high}{kept}",
        f"{spread:.2f}{unsteady}",
    )  # fmt: skip


def marginal_step(rounds: int) -> str:
    """What one more step of the sampler costs, over a lone call of its network."""
    short, long = (ours.sampler(solver="ddim", steps=n, **NET) for n in (50, 250))
    few, many, lone = timed([short, long, ours.calls(steps=50, **NET)], rounds).T
    ratio = np.median((many - few) / 200 / (lone / 50))
    return f"marginal step / lone call of the network: {ratio:.3f}, wanted 1.03"

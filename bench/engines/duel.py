"""Ours and another's, on the same work: a process each, in turns, so that both see the same machine.

A ratio is ours / theirs in time, below 1 where ours is faster: the median of the rounds' ratios; of two networks that
count their GFLOP, in time per GFLOP.  Spread is the largest of a side's times over its smallest; above `STEADY`
something else was running, and the figure is not worth keeping.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
STEADY = 1.3


class Duel(NamedTuple):
    """What came of it: seconds of each round by side, and what each side said of its case."""

    ours: list[float]
    theirs: list[float]
    facts: tuple[dict, dict]

    @property
    def ratio(self) -> float:
        ours, theirs = (facts.get("gflops") for facts in self.facts)
        work = theirs / ours if ours and theirs else 1.0
        return work * median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def spread(self) -> float:
        return max(max(side) / min(side) for side in (self.ours, self.theirs))


class Engine:
    """A worker process, on so many cores."""

    def __init__(self, name: str, *, cores: int, python: str = sys.executable):
        command = ["taskset", "-c", ",".join(map(str, range(cores))), python, "-m", f"bench.engines.{name}"]
        threads = {"OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores), "KMP_BLOCKTIME": "0"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | threads,
        )  # fmt: skip
        self.hello = self._answer()

    def ask(self, **request) -> dict:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: the engine {self.process.args[-1]} ended; what it said is above")
        return json.loads(line)


def fight(ours: Engine, theirs: Engine, case: str, options: dict, *, rounds: int, times: int = 1) -> Duel:
    """Build on both sides, warm up, then `rounds` of so many times each; who begins alternates."""
    sides = ours, theirs
    facts = tuple(side.ask(build=case, options=options) for side in sides)
    for side in sides:
        side.ask(run=1)
    rows: tuple[list[float], list[float]] = [], []
    for i in range(rounds):
        for j in (0, 1) if i % 2 else (1, 0):
            rows[j].append(median(sides[j].ask(run=times)["seconds"]))
    return Duel(*rows, facts)  # type: ignore[arg-type]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

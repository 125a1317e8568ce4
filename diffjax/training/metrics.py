"""Where numbers go: a progress bar, a JSON-lines file, TensorBoard.

`metrics.jsonl` holds one object a line, {"step": ..., name: value}.  What a killed run had written beyond the
checkpoint it resumes from is cut off first, so that the file of a resumed run reads like that of an uninterrupted one.
"""

import json
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm


class Report:
    """The reports of one run, written by process 0 alone (`quiet` elsewhere); use as a context manager."""

    def __init__(self, workdir: Path, *, start: int, total: int, rows: int, unit: str, quiet: bool = False):
        self._rows, self._unit, self._quiet = rows, unit, quiet
        self._at, self._clock = start, time.perf_counter()
        self._bar = tqdm(total=total, initial=start, unit="step", disable=quiet, dynamic_ncols=True, mininterval=0.5)
        if not quiet:
            path = workdir / "metrics.jsonl"
            _cut(path, start)
            self._file = path.open("a")
            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
        if not self._quiet:
            self._file.close()
            self._board.close()

    def training(self, step: int, metrics: list[dict[str, float]]) -> None:
        """The metrics of the steps since the last call, averaged, with the speed."""
        if not metrics:
            return
        seconds, self._clock = time.perf_counter() - self._clock, time.perf_counter()
        speed = (step - self._at) / seconds
        means = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}
        self._bar.set_postfix_str(f"loss {means['loss']:.4f}, {speed * self._rows:.0f} {self._unit}/s", refresh=False)
        self._bar.update(step - self._at)
        self._at = step
        self._write(step, means | {"steps_per_second": speed, f"{self._unit}_per_second": speed * self._rows})

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """What an evaluation found."""
        if scores:
            self._write(step, scores)
            self.note(f"step {step}: held-out loss {scores['heldout_loss']:.4f}")

    def resume(self) -> None:
        """Training goes on: what the clock has counted since the last metrics was something else."""
        self._clock = time.perf_counter()

    def note(self, sentence: str) -> None:
        """A line above the bar."""
        if not self._quiet:
            self._bar.write(sentence)

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._quiet:
            return
        self._file.write(json.dumps({"step": step} | values) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


def _cut(path: Path, step: int) -> None:
    """Drop the lines after `step`, and a last line that a kill left half written."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    path.write_text("".join(line + "\n" for line in kept))

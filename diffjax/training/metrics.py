"""Where numbers go: a progress bar, a JSON-lines file, TensorBoard and, if asked for, Weights & Biases.

`metrics.jsonl` holds one object a line, {"step": ..., name: value}.  What a killed run had written beyond the
checkpoint it resumes from is cut off first, so that the file of a resumed run reads like that of an uninterrupted one.

    loss, grad_norm       means over the steps since the last line
    loss_t0.06, ...       the loss in equal parts of [0, 1], named by their middles, as those of held-out data are
    data_wait             share of the time in which the host waited for data; the device may have been at work
    checkpoint_wait       share of the time since the last line in which training stood still for a save
    mfu                   model FLOP/s over the peak of the devices (Chowdhery et al. 2022, appendix B)
"""

import contextlib
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter
from tqdm import tqdm

from diffjax.errors import InputError, writing


class Board(Protocol):
    """Somewhere else that numbers go."""

    def add(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """An event file.  Without the thread of tensorboardX's own writer, in which a full disk goes unnoticed."""

    def __init__(self, folder: Path, start: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.6f}"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        purge = SessionLog(status=SessionLog.START)  # what another writer said of these steps counts no more
        self._write(Event(wall_time=time.time(), step=start + 1, session_log=purge))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._write(Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value)))

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())


class WandB:
    """Weights & Biases.  Raises InputError if it is not installed."""

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]):
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise InputError("Weights & Biases is not installed; pip install wandb, or leave out --wandb") from error
        name = workdir.resolve().name
        self._run = wandb.init(project=project, name=name, id=name, dir=workdir, config=dict(config), resume="allow")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class Report:
    """The reports of one run, written by process 0 alone (`quiet` elsewhere); use as a context manager.

    `facts` gives more numbers of a step; `utilisation` is the MFU at one step a second, 0 where no peak is known.
    """

    def __init__(
        self, workdir: Path, *, start: int, total: int, rows: int, unit: str, quiet: bool = False,
        facts: Callable[[int], Mapping[str, float]] = lambda step: {}, utilisation: float = 0.0,
        wandb: Board | None = None,
    ):  # fmt: skip
        self._workdir, self._rows, self._unit, self._quiet = workdir, rows, unit, quiet
        self._facts, self._utilisation = facts, utilisation
        self._at, self._clock = start, time.perf_counter()
        self._since, self._waits = self._clock, {"data": 0.0, "checkpoint": 0.0}
        self._bar = tqdm(total=total, initial=start, unit="step", disable=quiet, dynamic_ncols=True, mininterval=0.5)
        if not quiet:
            path = workdir / "metrics.jsonl"
            with writing(workdir):
                _cut(path, start)
                self._file = path.open("a")
                self._boards = [TensorBoard(workdir / "tensorboard", start), *([wandb] if wandb else [])]

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
        for open_one in [self._file, *self._boards] if not self._quiet else ():
            with contextlib.suppress(OSError):  # a full disk has been reported, or will be by the checkpoint
                open_one.close()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """What happens within is a wait for `what`: data or checkpoint."""
        begun = time.perf_counter()
        yield
        self._waits[what] += time.perf_counter() - begun

    def training(self, step: int, metrics: list[Mapping[str, Any]]) -> None:
        """The metrics of the steps since the last call, averaged, with the speed."""
        if not metrics:
            return
        now = time.perf_counter()
        seconds, since, self._clock, self._since = now - self._clock, now - self._since, now, now
        speed = (step - self._at) / seconds
        means = {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0] if name != "by_level"}
        self._bar.set_postfix_str(f"loss {means['loss']:.4f}, {speed * self._rows:.0f} {self._unit}/s", refresh=False)
        self._bar.update(step - self._at)
        self._at = step
        values = means | _levels(metrics) | dict(self._facts(step))
        values |= {"steps_per_second": speed, f"{self._unit}_per_second": speed * self._rows}
        values |= {"data_wait": self._waits["data"] / seconds, "checkpoint_wait": self._waits["checkpoint"] / since}
        values |= {"mfu": self._utilisation * speed} if self._utilisation else {}
        self._waits = dict.fromkeys(self._waits, 0.0)
        self._write(step, values)

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
        with writing(self._workdir):
            self._file.write(json.dumps({"step": step} | values) + "\n")
            self._file.flush()
            for board in self._boards:
                board.add(step, values)


def _levels(metrics: list[Mapping[str, Any]]) -> dict[str, float]:
    """loss_t0.06 and so on, of the levels that any row had."""
    sums, counts = np.sum([m["by_level"] for m in metrics], axis=0) if "by_level" in metrics[0] else np.zeros((2, 0))
    middles = (np.arange(len(sums)) + 0.5) / max(len(sums), 1)
    return {f"loss_t{t:.2f}": float(s / n) for t, s, n in zip(middles, sums, counts, strict=True) if n}


def _cut(path: Path, step: int) -> None:
    """Drop the lines after `step`, and a last line that a kill left half written."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(line + "\n" for line in kept))
    draft.replace(path)

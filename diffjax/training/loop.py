"""The loop around the compiled steps: when to log, evaluate, draw previews, save, and when to stop.

A call advances n steps and returns the metrics of each; it ends where something is due, so n changes nothing but speed.
The host runs at most AHEAD calls before the device, and reads batches while others are worked on.  Metrics stay on the
device until they are shown.  A loss or a gradient that is not finite stops the run before anything is saved, so the
newest checkpoint is always a good one.
"""

import contextlib
import math
import signal
import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from diffjax.errors import InputError

from .metrics import Report
from .profiling import Profile
from .step import State

AHEAD = 4  # calls whose batches wait on the device


class Rhythm(NamedTuple):
    """Every how many steps each thing happens; 0 is never."""

    log: int
    evaluate: int
    checkpoint: int
    preview: int
    snapshot: int  # of the averages, to rebuild others from


def calls(steps: range, rhythm: Rhythm, most: int) -> Iterator[int]:
    """How many steps each call takes: `most`, or 1 where something is due before; so there are two programs at most."""
    done = steps.start
    while done < steps.stop:
        due = min([steps.stop, *(done - done % every + every for every in rhythm if every)])
        n = most if done + most <= due else 1
        yield n
        done += n


class Watch:
    """Looks at every step's metrics, in order: a number that is not finite, or a loss that spikes.

    A spike is a loss of more than `spike` times the median of the last `window` ones; 0 looks for none.
    """

    def __init__(self, spike: float = 0.0, window: int = 100):
        self.spike, self.recent = spike, deque(maxlen=window)

    def reason(self, metrics: dict[str, float]) -> str:
        """What is wrong with the metrics of the next step, or ""."""
        usual = statistics.median(m["loss"] for m in self.recent) if len(self.recent) > 9 else math.inf
        self.recent.append(metrics)
        for name in sorted(metrics, key=lambda name: name != "loss"):
            if not math.isfinite(metrics[name]):
                return f"the {name} became {metrics[name]}"
        if self.spike and metrics["loss"] > self.spike * usual:
            return f"the loss of {metrics['loss']:.4g} is {metrics['loss'] / usual:.1f} times the median"
        return ""


class Actions(NamedTuple):
    """What the loop calls; it knows no more of them than this."""

    evaluate: Callable[[State], dict[str, float]]  # scores; the one named heldout_loss ranks checkpoints
    preview: Callable[[State, int], None]
    save: Callable[[State, int, float | None], None]  # state, step, score
    snapshot: Callable[[State, int], None]
    alarm: Callable[[int, str, list], Path]  # number of the step, what is wrong, metrics so far: the black box
    stop: Callable[[int], bool]  # whether to save and end after this step, or after the call that it is of


def fit(
    step: Callable, state: State, batches: Iterator, *, steps: range, rhythm: Rhythm, actions: Actions,
    report: Report, watch: Watch | None = None, profile: Profile | None = None,
) -> State:  # fmt: skip
    """Run `steps`, whose first is the number of the first batch, and return the last state.

    step: (state, batches [n, ...]) -> (state, metrics [n, ...]); `batches` yields for each call what `calls` says.
    Raises InputError when loss or gradient is not finite; what was saved before stays as it was.
    """
    watch, profile = watch or Watch(), profile or Profile()
    pending: list[dict[str, jax.Array]] = []
    done = steps.start
    while done < steps.stop:
        with report.waiting("data"):
            batch = next(batches)
        state, metrics = step(state, batch)
        pending.append(metrics)
        jax.block_until_ready(pending[-AHEAD:][0])
        n = len(metrics["loss"])
        done += n
        profile.step(metrics, n)
        stop = any([actions.stop(done - k) for k in reversed(range(n))])  # of each step: the processes agree on one
        last = done == steps.stop

        def due(every: int, done=done, last=last) -> bool:
            return every > 0 and (last or done % every == 0)

        # 1. look at the losses: before anything is kept of them
        pause = stop or last or any(map(due, rhythm[1:]))  # all but the log
        if pause or due(rhythm.log):
            report.training(done, _judged(pending, done, watch, actions, report))
            pending.clear()
        # 2. judge and draw, with the average
        scores = actions.evaluate(state) if due(rhythm.evaluate) else {}
        report.scores(done, scores)
        if due(rhythm.preview):
            actions.preview(state, done)
        # 3. keep
        with report.waiting("checkpoint"):
            if due(rhythm.snapshot):
                actions.snapshot(state, done)
            if stop or last or due(rhythm.checkpoint):
                actions.save(state, done, scores.get("heldout_loss"))
        if pause:
            report.resume()
        if stop:
            report.note(f"stopped at step {done} of {steps.stop}; run the same command to continue")
            break
    return state


def _judged(pending: list, done: int, watch: Watch, actions: Actions, report: Report) -> list[Any]:
    """The metrics of the last steps, on the host; InputError at the first that is not finite."""
    fetched = [
        {name: values[i] for name, values in call.items()}
        for call in jax.device_get(pending)
        for i in range(len(call["loss"]))
    ]
    for number, values in enumerate(fetched, start=done - len(fetched)):
        metrics = {name: float(value) for name, value in values.items() if not value.ndim}
        if not (reason := watch.reason(metrics)):
            continue
        box = actions.alarm(number, reason, list(watch.recent))
        if all(map(math.isfinite, metrics.values())):
            report.note(f"step {number}: {reason}; do it again with python train.py --replay {box}")
            continue
        raise InputError(
            f"{reason} in step {number}, on batch {number}; nothing was saved since the last good checkpoint: look at "
            f"the step with python train.py --replay {box}, run the same command again to resume before it, or lower "
            f"optimizer.learning_rate (a changed config needs --allow_changes)"
        )
    return fetched


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, SIGINT and SIGTERM only raise a flag, which the yielded function reads; a second SIGINT interrupts."""
    raised = threading.Event()

    def handle(number, frame):
        if raised.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        raised.set()

    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield raised.is_set
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield raised.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

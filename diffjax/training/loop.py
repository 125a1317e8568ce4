"""The loop around the compiled step: when to log, evaluate, draw previews, save, and when to stop.

Nothing waits for the device but the log: metrics stay there until they are shown.  A loss or a gradient that is not
finite stops the run before anything is saved, so the newest checkpoint is always a good one.
"""

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from diffjax.errors import InputError

from .metrics import Report
from .step import State


class Rhythm(NamedTuple):
    """Every how many steps each thing happens; 0 is never."""

    log: int
    evaluate: int
    checkpoint: int
    preview: int


class Actions(NamedTuple):
    """What the loop calls; it knows no more of them than this."""

    evaluate: Callable[[State], dict[str, float]]  # scores; the one named heldout_loss ranks checkpoints
    preview: Callable[[State, int], None]
    save: Callable[[State, int, float | None], None]  # state, step, score
    stop: Callable[[int], bool]  # whether to save and end after this step


def fit(
    step: Callable, state: State, batches: Iterator, *, steps: range, rhythm: Rhythm, actions: Actions, report: Report
) -> State:
    """Run `steps`, whose first is the number of the first batch, and return the last state.

    Raises InputError when loss or gradient is not finite; what was saved before stays as it was.
    """
    pending: list[dict[str, jax.Array]] = []
    for done, batch in zip(range(steps.start + 1, steps.stop + 1), batches, strict=False):
        state, metrics = step(state, batch)
        pending.append(metrics)
        stop, last = actions.stop(done), done == steps.stop

        def due(every: int, done=done, last=last) -> bool:
            return every > 0 and (last or done % every == 0)

        # 1. look at the losses: before anything is kept of them
        pause = stop or last or due(rhythm.evaluate) or due(rhythm.preview) or due(rhythm.checkpoint)
        if pause or due(rhythm.log):
            report.training(done, _finite(pending, done))
            pending.clear()
        # 2. judge and draw, with the average
        scores = actions.evaluate(state) if due(rhythm.evaluate) else {}
        report.scores(done, scores)
        if due(rhythm.preview):
            actions.preview(state, done)
        # 3. keep
        if stop or last or due(rhythm.checkpoint):
            actions.save(state, done, scores.get("heldout_loss"))
        if pause:
            report.resume()
        if stop:
            report.note(f"stopped at step {done} of {steps.stop}; run the same command to continue")
            break
    return state


def _finite(pending: list[dict[str, jax.Array]], done: int) -> list[dict[str, float]]:
    """The metrics of the last steps, on the host; InputError at the first that is not finite."""
    values = [{name: float(value) for name, value in metrics.items()} for metrics in jax.device_get(pending)]
    for number, metrics in enumerate(values, start=done - len(values)):
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise InputError(
                    f"the {name} became {value} in step {number}, on batch {number}; nothing was saved since the last "
                    f"good checkpoint: run the same command again to resume there and replay the step exactly, or "
                    f"lower optimizer.learning_rate (a changed config needs --allow_changes)"
                )
    return values


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

"""A trace of some steps, to be looked at with TensorBoard or Perfetto: what the device did, and when it waited."""

from pathlib import Path
from typing import Any

import jax

WARM = 5  # steps that are passed over first: compilation


class Profile:
    """Traces `steps` steps of a run into a folder, in whole calls, once; 0 traces nothing."""

    def __init__(self, folder: Path = Path("profile"), steps: int = 0):
        self.folder, self.steps, self.seen, self.end = folder, steps, 0, 0

    def step(self, metrics: Any, n: int = 1) -> None:
        """To be called after every call, of `n` steps, with what it returned."""
        before, self.seen = self.seen, self.seen + n
        if self.steps and before < WARM <= self.seen:
            jax.block_until_ready(metrics)
            jax.profiler.start_trace(str(self.folder))
            self.end = self.seen + self.steps
        elif before < self.end <= self.seen:
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()

    def close(self) -> None:
        """The end of a run that was shorter than what was to be traced: keep what there is of it."""
        if self.seen < self.end:
            jax.profiler.stop_trace()

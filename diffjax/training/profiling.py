"""A trace of some steps, to be looked at with TensorBoard or Perfetto: what the device did, and when it waited."""

from pathlib import Path
from typing import Any

import jax

WARM = 5  # steps that are passed over first: compilation


class Profile:
    """Traces `steps` steps of a run into a folder, once; 0 traces nothing."""

    def __init__(self, folder: Path = Path("profile"), steps: int = 0):
        self.folder, self.steps, self.seen = folder, steps, 0

    def step(self, metrics: Any) -> None:
        """To be called after every step with what it returned."""
        if not self.steps or self.seen > WARM + self.steps:
            return
        self.seen += 1
        if self.seen == WARM:
            jax.block_until_ready(metrics)
            jax.profiler.start_trace(str(self.folder))
        elif self.seen == WARM + self.steps:
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            self.seen += 1

    def close(self) -> None:
        """The end of a run that was shorter than what was to be traced: keep what there is of it."""
        if self.steps and WARM <= self.seen < WARM + self.steps:
            jax.profiler.stop_trace()

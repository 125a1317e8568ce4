"""What goes wrong with a checkpoint, in one sentence that names step, path and cause."""

import contextlib
import gc
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from diffjax.errors import InputError


class CheckpointError(InputError):
    """A checkpoint could not be written, read or trusted; the sentence names step, path and cause."""

    def __init__(self, step: int | None, path: Path, cause: str):
        super().__init__(f"checkpoint{'s in' if step is None else f' at step {step} in'} {path}: {cause}")
        self.step, self.path, self.cause = step, path, cause


class CheckpointMismatch(CheckpointError):
    """The checkpoint is of another model than the target: an older step would not help, so there is no fallback."""


@contextlib.contextmanager
def blaming(step: int | None, path: Path) -> Iterator[None]:
    """Turn whatever Orbax, TensorStore, JSON or the file system throws into a CheckpointError of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # TensorStore raises bare Exceptions of a hundred lines; the first one says it
        root = _forget_reads(error)
        line = next((line.strip() for line in str(root).splitlines() if line.strip()), "")
        raise CheckpointError(step, path, f"{type(root).__name__}: {line}"[:200]) from error


def _forget_reads(error: BaseException) -> BaseException:
    """The first error behind this one; drops the reads it has left, which would complain on stderr of a closed loop."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    first: BaseException | None = error
    while first:
        error = first
        traceback.clear_frames(error.__traceback__)
        first = error.__cause__ or error.__context__
    time.sleep(0.1)  # until they are through: they run in threads of TensorStore
    gc.collect()
    sys.unraisablehook = hook
    return error

"""What every module of a network answers, by name: 'down/0/blocks/1/conv1' -> [its output, once for each call].

    with capture() as seen:
        net.apply(params, x, level, label)

Nothing is compiled meanwhile, so that loops over stacked blocks are loops, and each pass of them is another call.  What
is computed again for a backward pass (remat) cannot be seen: make the network with remat "none".
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import numpy as np
from flax import nnx

_SEEN: ContextVar[dict[str, list[np.ndarray]] | None] = ContextVar("seen", default=None)


@contextmanager
def capture() -> Iterator[dict[str, list[np.ndarray]]]:
    """A dict that fills while networks are applied inside."""
    seen: dict[str, list[np.ndarray]] = {}
    token = _SEEN.set(seen)
    try:
        with jax.disable_jit():
            yield seen
    finally:
        _SEEN.reset(token)


def watched(module: nnx.Module) -> nnx.Module:
    """The module, with its parts made to say what they answer if anyone listens; its own, fresh from nnx.merge."""
    if _SEEN.get() is not None:
        for path, part in list(nnx.iter_modules(module)):
            if hasattr(type(part), "__call__"):
                part.__class__ = _speaking(type(part))
                part.path = "/".join(map(str, path))  # static, so that it goes through nnx.split and nnx.merge
    return module


@functools.cache
def _speaking(kind: type) -> type:
    def call(self, *args, **kwargs):
        out, seen = kind.__call__(self, *args, **kwargs), _SEEN.get()
        if seen is not None and isinstance(out, jax.Array) and not isinstance(out, jax.core.Tracer):
            seen.setdefault(self.path, []).append(np.asarray(out))
        return out

    return type(kind)(kind.__name__, (kind,), {"__call__": call})

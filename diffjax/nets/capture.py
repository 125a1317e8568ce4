"""What every module of a network answers, as it does: ('down/0/blocks/1/conv1', its output), ...

    with capture() as seen:
        net.apply(params, x, level, label)

Loops over stacked blocks are written out meanwhile, so that each pass answers; all this may be inside of jax.jit.
What is computed again for a backward pass (remat) cannot be seen: make the network with remat "none".
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
from flax import nnx

Seen = list[tuple[str, jax.Array]]
_SEEN: ContextVar[Seen | None] = ContextVar("seen", default=None)
_PATH = "path_of_capture"


@contextmanager
def capture() -> Iterator[Seen]:
    """A list that fills while networks are applied inside."""
    seen: Seen = []
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
            part.__class__ = _speaking(type(part))
            setattr(part, _PATH, "/".join(map(str, path)))  # static: it goes through nnx.split and nnx.merge
    return module


@functools.cache
def _speaking(kind: type) -> type:
    def call(self, *args, **kwargs):
        out, seen = kind.__call__(self, *args, **kwargs), _SEEN.get()
        if seen is not None and isinstance(out, jax.Array):
            seen.append((getattr(self, _PATH), out))
        return out

    return type(kind)(kind.__name__, (kind,), {"__call__": call})

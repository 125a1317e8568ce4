"""What a command sets for its process, before it imports jax: compiled programs and memory are kept.

The temporaries of a program are one block of memory, hundreds of megabytes for a training step.  glibc maps a block of
that size anew whenever it is asked for one, and the kernel fills it a page at a time: on a CPU up to a quarter of a
step (bench/README.md).  A heap that every thread shares and that is never trimmed keeps its pages, in so far as the
process keeps what it has once needed.
"""

import ctypes
import os
from pathlib import Path

# Of <malloc.h>: one arena for all threads, for the others' cannot grow to such a size; no maps; no trimming.
M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD = -8, -4, -1
KEPT = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}


def prepare() -> None:
    """Both; every script begins with it."""
    keep_memory()
    cache_compilations()


def cache_compilations() -> None:
    """Keep compiled programs between processes: in $JAX_COMPILATION_CACHE_DIR, or else in ~/.cache/diffjax."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "diffjax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def keep_memory() -> bool:
    """Keep freed memory in the process, for the next call; False where malloc is not glibc's, and nothing changes.

    Arenas that threads have already are shared out too, and cannot grow: call it before numpy and jax are imported.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and all(mallopt(parameter, value) for parameter, value in KEPT.items())

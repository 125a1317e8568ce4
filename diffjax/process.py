"""What a command sets for its process, before it imports jax: compiled programs and memory are kept, cores are used.

The temporaries of a program are one block of memory, hundreds of megabytes for a training step.  glibc maps a block of
that size anew whenever it is asked for one, and the kernel fills it a page at a time: on a CPU up to a quarter of a
step (bench/README.md).  A heap that every thread shares and that is never trimmed keeps its pages, in so far as the
process keeps what it has once needed.

Convolutions of fewer than 128 channels keep one core of a CPU busy in the library that XLA computes them with by
default; the one that it had before divides them among all.
"""

import ctypes
import importlib.util
import os
from importlib.metadata import version
from pathlib import Path

# Of <malloc.h>: one arena for all threads, for the others' cannot grow to such a size; no maps; no trimming.
M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD = -8, -4, -1
KEPT = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}

# What XLA gives to its newer library on a CPU, and all of that but convolutions.
LIBRARY, WITHOUT = "--xla_cpu_experimental_ynn_fusion_type", "-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
PLUGINS = "libtpu", "jax_plugins"  # of accelerators


def prepare(*, cache: bool = True) -> None:
    """All of it; every script begins with it, and what measures compilation without the cache."""
    keep_memory()
    use_cores()
    if cache:
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


def use_cores() -> bool:
    """Divide convolutions among a CPU's cores; False where the flag may be unknown, which would end the process.

    It is added to $XLA_FLAGS, unless these have chosen, for jax 0.10 without an accelerator's plugin.  Call it before
    jax computes.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    known = version("jaxlib").startswith("0.10.") and not any(map(importlib.util.find_spec, PLUGINS))
    if known and LIBRARY not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {LIBRARY}={WITHOUT}".strip()
    return known

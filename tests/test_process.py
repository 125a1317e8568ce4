"""What a command sets for its process."""

import ctypes

import pytest

from tests.commands import run

FAULTS = """
import resource, sys
import diffjax

kept = sys.argv[1] == "kept" and diffjax.keep_memory()
import jax, jax.numpy as jnp

call = jax.jit(lambda x: jnp.fft.rfft(x)[0])
x, faults = jnp.zeros(2**23), []  # 32 MiB, 8,192 pages
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(faults))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="malloc is not glibc's")
def test_kept_memory_is_not_mapped_anew():
    """Page faults of a call that was made before: one for each page, or none to speak of."""
    found = {}
    for how in ("fresh", "kept"):
        code, out, err = run("-c", FAULTS, how)
        assert code == 0, err
        kept, faults = out.split()
        assert kept == str(how == "kept")
        found[how] = int(faults)
    assert found["fresh"] > 8_000 and found["kept"] < 100

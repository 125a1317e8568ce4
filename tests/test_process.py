"""What a command sets for its process."""

import ctypes
import os
from importlib.metadata import version

import pytest

from diffjax.process import LIBRARY, use_cores
from tests.commands import run

known = pytest.mark.skipif(not version("jaxlib").startswith("0.10."), reason="a later XLA may not know the flag")

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


CORES = """
import os
import diffjax

os.environ["XLA_FLAGS"] = ""
assert diffjax.use_cores()
import jax.numpy as jnp
from diffjax.nets.convolution import convolve

print(convolve(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)))[0, 1, 1, 0])
"""


@known
def test_what_is_said_of_cores_is_said_once_and_never_against_a_choice(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=here")
    assert use_cores() and use_cores()
    first, *others = os.environ["XLA_FLAGS"].split()
    assert first == "--xla_dump_to=here" and len(others) == 1 and others[0].startswith(LIBRARY)
    monkeypatch.setenv("XLA_FLAGS", f"{LIBRARY}=")
    assert use_cores() and os.environ["XLA_FLAGS"] == f"{LIBRARY}="


@known
def test_the_flag_is_one_that_xla_knows():
    """An unknown one ends the process."""
    code, out, err = run("-c", CORES)
    assert code == 0 and float(out) == 18, err


def test_an_unknown_version_is_left_alone(monkeypatch):
    monkeypatch.setattr("diffjax.process.version", lambda name: "0.12.0")
    monkeypatch.setenv("XLA_FLAGS", "")
    assert not use_cores() and os.environ["XLA_FLAGS"] == ""

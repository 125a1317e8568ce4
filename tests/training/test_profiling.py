"""A trace of some steps is written once, whatever the length of the run."""

import jax
import jax.numpy as jnp
import pytest

from diffjax.training import Profile


@pytest.mark.parametrize("steps, run, traces", [(3, 20, 1), (3, 6, 1), (3, 2, 0), (0, 20, 0)])
def test_traces(tmp_path, steps, run, traces):
    profile, add = Profile(tmp_path / "profile", steps), jax.jit(lambda x: x + 1)
    for i in range(run):
        profile.step({"loss": add(jnp.float32(i))})
    profile.close()
    assert len(list(tmp_path.glob("profile/**/*.xplane.pb"))) == traces

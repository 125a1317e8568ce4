"""A trace of some steps is written once, whatever the length of the run."""

import jax
import jax.numpy as jnp
import pytest

from diffjax.training import Profile


@pytest.mark.parametrize(
    "steps, run, n, traces",
    [(3, 20, 1, 1), (3, 6, 1, 1), (3, 2, 1, 0), (0, 20, 1, 0), (3, 5, 4, 1), (3, 2, 4, 1), (3, 1, 4, 0)],
)
def test_traces(tmp_path, steps, run, n, traces):
    profile, add = Profile(tmp_path / "profile", steps), jax.jit(lambda x: x + 1)
    for i in range(run):
        profile.step({"loss": add(jnp.float32(i))}, n)
    profile.close()
    assert len(list(tmp_path.glob("profile/**/*.xplane.pb"))) == traces


def test_what_is_traced_is_whole_calls(tmp_path, monkeypatch):
    """The first call at whose end five steps are passed, and as many more as hold the steps asked for."""
    seen, at = [], 0
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: seen.append(at))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append(at))
    for lengths, wanted in (
        ([1] * 20, [5, 8]),
        ([4] * 5, [8, 12]),
        ([1, 10, 10, 1], [11, 21]),
        ([10, 1, 1, 1, 1], [10, 13]),
    ):
        profile, at = Profile(tmp_path, 3), 0
        for n in lengths:
            at += n
            profile.step({}, n)
        profile.close()
        assert seen == wanted
        seen.clear()

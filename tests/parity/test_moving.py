"""What docs/moving.md says is theirs is theirs; what it says is ours is looked up by tests/test_docs.py."""

import re

import peers
import pytest

from tests.test_docs import rows_of

NAMES = {name for theirs, _ in rows_of("moving.md") for name in re.findall(r"`(\w+)`", theirs)}
SCHEDULERS = sorted(name for name in NAMES if name.endswith("Scheduler"))
SAMPLERS = sorted(name for name in NAMES if re.match("sample_|get_sigmas_|BrownianTree", name))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_of_diffusers(name):
    assert hasattr(peers.diffusers, name)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_of_k_diffusion(name):
    assert hasattr(peers.k_sampling, name)


def test_none_of_k_diffusion_is_left_out():
    assert {name for name in vars(peers.k_sampling) if name.startswith("sample_")} <= NAMES

"""A run that is judged: two moons, two classes, quickly made."""

import pytest

import diffjax
from configs import toy_moons


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Its workdir, after 300 steps."""
    config = toy_moons.get_config().to_dict() | dict(steps=300, batch_size=64)
    config["net"] = dict(name="mlp", width=32, depth=1, dtype="float32")
    config["sampler"] = dict(solver="ddim", steps=4, num=8)
    config["every"] = dict(log=100, evaluate=0, checkpoint=0, preview=0, snapshot=0)
    workdir = tmp_path_factory.mktemp("judged") / "run"
    diffjax.train(config, workdir)
    return workdir

"""What a run would cost is told without running it."""

import json
import math

import jax
import pytest

import diffjax
from configs import digits, toy_moons
from diffjax.errors import InputError
from diffjax.experiment import build
from diffjax.program import flops_per_step, mesh_of, program
from diffjax.training.cost import ACCELERATORS
from tests.commands import ROOT, refused, run


def small(**changes):
    config = toy_moons.get_config().to_dict() | dict(batch_size=64)
    config["net"] = dict(name="mlp", width=128, depth=2, dtype="float32")
    return config | changes


def test_a_mesh_of_eight(capsys):
    found = diffjax.dry_run(small(mesh=dict(fsdp=4, tensor=1)), accelerator="v5e")
    shown = capsys.readouterr().out
    assert found["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1} and found["fits"] == {"v5e": True}
    for words in ("data 2 x fsdp 4 x tensor 1", "blocks/0/kernel", "all-gather", "fits v5e", "FLOP a step"):
        assert words in shown
    kernel = 128 * 128
    forward = 2 * (2 * kernel + 2 * 2 * kernel + kernel + 256 * 2)  # blocks, film, embedding, stem and head
    assert 2 * forward < found["flops_per_example"] < 4 * forward


def test_parts_change_no_arithmetic_and_save_memory():
    whole, parts = (
        diffjax.dry_run(small(batch_size=4096, memory=dict(accumulate=n, remat="none", offload=False))) for n in (1, 8)
    )
    assert whole["flops_per_step"] == parts["flops_per_step"]
    assert parts["memory"]["temporary"] < 0.5 * whole["memory"]["temporary"]


def test_a_call_of_many_steps_takes_the_room_of_its_batches():
    """Seven batches more, on each device its rows; nothing more is computed for a step, and no large array is sent."""
    mesh = dict(fsdp=4, tensor=1)
    one, many = (diffjax.dry_run(small(mesh=mesh, steps_per_call=n)) for n in (1, 8))
    rows = 64 // 8 * 4 * (2 + 1)  # two numbers and a label
    assert many["memory"]["arguments"] - one["memory"]["arguments"] == 7 * rows
    sent = lambda found: {kind: [n for n in sizes if n > 1024] for kind, sizes in found["collectives"].items()}  # noqa: E731
    assert sent(one) == sent(many) and one["flops_per_step"] == many["flops_per_step"]


def test_a_device_holds_its_share_of_the_state():
    found = diffjax.dry_run(
        small(mesh=dict(fsdp=8, tensor=1), net=dict(name="mlp", width=512, depth=4, dtype="float32"))
    )
    total = 4 * found["parameters"] * 5  # parameters, two averages, two moments
    held = sum(found["state_bytes"].values())
    assert held < 0.14 * total
    layer = 4 * (512 * 1024 + 1024 + 512 * 3)  # the largest, with small arrays that ride along
    assert max(max(sizes) for sizes in found["collectives"].values()) < 1.01 * layer


def test_it_is_the_memory_that_the_state_takes():
    experiment = build(small(mesh=dict(fsdp=4, tensor=1)))
    init, _, _ = program(experiment, mesh_of(experiment.config))
    state = init(jax.random.key(0))
    there = jax.devices()[0]
    for field, size in diffjax.dry_run(small(mesh=dict(fsdp=4, tensor=1)))["state_bytes"].items():
        if field != "key":
            leaves = jax.tree.leaves(getattr(state, field))
            assert size == sum(s.data.nbytes for leaf in leaves for s in leaf.addressable_shards if s.device == there)


@pytest.mark.slow
def test_devices_that_are_not_here(tmp_path):
    command = ["train.py", "--config", "configs/toy_moons.py", "--dry_run", "--config.mesh.fsdp=2"]
    status, out, err = run(*command, "--devices", 16)
    assert status == 0 and "data 8 x fsdp 2 x tensor 1, 16 x cpu" in out, err
    assert "does not divide the 6 devices" in refused(*command[:-1], "--config.mesh.fsdp=4", "--devices", 6)
    assert not (ROOT / "runs" / "moons").exists() or tmp_path


def test_an_unknown_accelerator():
    with pytest.raises(InputError, match="no accelerator 'h300'; did you mean 'h[12]00'"):
        diffjax.dry_run(small(), accelerator="h300")


def test_what_fits_is_found_and_loses_least(capsys, monkeypatch):
    """A device is made so small that the state has to be split; with room for all, nothing is."""
    config = small(net=dict(name="mlp", width=512, depth=4, dtype="float32"), batch_size=512)
    whole = diffjax.dry_run(config)["bytes_per_device"]
    chip = ACCELERATORS["v5e"]._replace(bandwidth=1e30)  # what is left is what the links carry
    monkeypatch.setitem(ACCELERATORS, "v5e", chip._replace(memory=1.1 * whole))
    alone = diffjax.fit(config, accelerator="v5e")
    assert alone["mesh"] == {"fsdp": 1, "tensor": 1} and alone["memory"]["accumulate"] == 1
    monkeypatch.setitem(ACCELERATORS, "v5e", chip._replace(memory=0.5 * whole))
    found = diffjax.fit(config, accelerator="v5e")
    shown = capsys.readouterr().out
    assert found["mesh"]["fsdp"] > 1 and "too large" in shown and f"--config.mesh.fsdp={found['mesh']['fsdp']}" in shown
    assert diffjax.dry_run(config | found)["bytes_per_device"] <= 0.5 * whole
    monkeypatch.setitem(ACCELERATORS, "v5e", chip._replace(memory=0.01 * whole))
    with pytest.raises(InputError, match="nothing fits v5e: the least of .* plans takes"):
        diffjax.fit(config, accelerator="v5e")


def test_a_state_on_the_host_is_not_counted_on_the_device():
    near, far = (diffjax.dry_run(small(memory=dict(accumulate=1, remat="none", offload=o))) for o in (False, True))
    assert near["bytes_per_device"] - far["bytes_per_device"] == near["state_bytes"]["opt"]


@pytest.mark.slow
def test_a_unet_over_eight_devices():
    """Seven million parameters: an eighth of the state each, and nothing larger than a layer is ever sent."""
    config = digits.get_config().to_dict() | dict(mesh=dict(fsdp=8, tensor=1))
    config["net"] = dict(name="unet", width=96, multipliers=(1, 2), blocks=1, attention=(4,))
    found = diffjax.dry_run(config)
    total = 4 * found["parameters"] * 4  # parameters, an average, two moments
    assert sum(found["state_bytes"].values()) < 0.14 * total
    layer = 4 * (3 * 3 * 384 * 192 + 192)  # up/0/blocks/0/conv1, the largest
    assert 0.9 * layer < max(max(sizes) for sizes in found["collectives"].values()) < 1.01 * layer


@pytest.mark.slow
def test_a_transformer_over_eight_devices():
    """Of the loop over blocks each turn gathers one: nothing larger than a block's parameters is ever sent."""
    config = digits.get_config().to_dict() | dict(mesh=dict(fsdp=8, tensor=1))
    config["net"] = dict(name="dit", width=192, depth=8, heads=3, patch=2)
    found = diffjax.dry_run(config)
    total = 4 * found["parameters"] * 4  # parameters, an average, two moments
    assert sum(found["state_bytes"].values()) < 0.14 * total
    block = 4 * (18 * 192**2 + 15 * 192)  # film 6, qkv 3, out 1, mlp 8
    assert 6 / 18 * block < max(max(sizes) for sizes in found["collectives"].values()) <= block


def test_a_run_on_a_known_accelerator_reports_its_utilisation(tmp_path, monkeypatch):
    """Counted arithmetic x steps a second / peak of all devices; and what else a line holds."""
    monkeypatch.setitem(ACCELERATORS, "here", ACCELERATORS["v5e"]._replace(kind="cpu", flops=1e12))
    config = small(steps=12)
    config["every"] = dict(log=4, evaluate=0, checkpoint=0, preview=0, snapshot=0)
    diffjax.train(config, tmp_path / "run", profile=3)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    flops = flops_per_step(build(config))
    for line in lines:
        assert line["mfu"] == pytest.approx(flops * line["steps_per_second"] / (jax.device_count() * 1e12))
        assert 0 <= line["data_wait"] <= 1 and 0 <= line["checkpoint_wait"] <= 1 and line["ema_0.1_steps"] > 0
        decay = 0.5 * (1 + math.cos(math.pi * (line["step"] - 1) / 12))
        assert line["loss_t0.06"] > 0 and line["learning_rate"] == pytest.approx(
            3e-3 * line["step"] / 100 * decay, rel=1e-4
        )
    assert list((tmp_path / "run" / "profile").glob("**/*.xplane.pb"))

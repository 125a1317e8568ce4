"""Two real processes over loopback train as one does, stop together, and leave what one process can continue."""

import json
import signal
import socket
import time

import jax
import numpy as np
import pytest

import diffjax
from tests.commands import TOY, refused, run, start

pytestmark = pytest.mark.slow
SMALL = [*TOY, "--config.batch_size=64", "--config.every.checkpoint=10", "--config.every.log=5",
         "--config.every.preview=15", "--config.every.evaluate=15", "--config.sampler.num=50",
         "--config.data.size=500"]  # fmt: skip


def pair(*arguments, only_second=()):
    """The same command as process 0 and process 1, four devices each; the second may be given more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    more = [(), only_second]
    return [start(*arguments, *more[i], devices=4, **shared, JAX_PROCESS_ID=str(i)) for i in range(2)]


def finish(processes):
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


def numbers(workdir, name):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def same(one, two):
    for a, b in zip(*(jax.tree.leaves(diffjax.load(workdir).params) for workdir in (one, two)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with eight devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    status, _, err = run(*SMALL, "--config.steps=30", "--workdir", workdir, devices=8)
    assert status == 0, err
    return workdir


@pytest.mark.parametrize("fsdp, calls", [(1, 5), (4, 1)])
def test_two_processes_train_as_one(alone, tmp_path, fsdp, calls):
    arguments = [*SMALL, "--config.steps=30", f"--config.mesh.fsdp={fsdp}", f"--config.steps_per_call={calls}"]
    arguments += ["--workdir", tmp_path / "run"]
    outputs = finish(pair(*arguments))
    assert "8 device(s)" in outputs[0][0] and "device(s)" not in outputs[1][0]  # process 0 speaks alone
    same(tmp_path / "run", alone)
    np.testing.assert_allclose(numbers(tmp_path / "run", "loss"), numbers(alone, "loss"), rtol=1e-5)
    np.testing.assert_allclose(numbers(tmp_path / "run", "heldout_loss"), numbers(alone, "heldout_loss"), rtol=1e-5)
    drawn = [sorted(p.name for p in (run / "previews").iterdir()) for run in (tmp_path / "run", alone)]
    assert drawn == [["0000015.png", "0000030.png"]] * 2


@pytest.mark.parametrize("calls", [1, 5])
def test_a_signal_to_one_stops_both_and_one_continues(tmp_path, calls):
    workdir = tmp_path / "run"
    long = [*SMALL, "--config.steps=60000", "--workdir", workdir, "--config.optimizer.decay=constant"]
    long.append(f"--config.steps_per_call={calls}")
    processes = pair(*long)
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and not (workdir / "checkpoints" / "10").exists():
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    finish(processes)
    step = diffjax.load(workdir).step
    assert 10 <= step < 60000
    status, out, err = run(*long, f"--config.steps={step + 5}", "--allow_changes", devices=8)
    assert status == 0 and f"continuing at step {step}" in out, err


@pytest.mark.parametrize("lost", [1, 0])
def test_when_one_is_lost_the_other_says_so_and_both_continue(tmp_path, lost):
    workdir = tmp_path / "run"
    long = [*SMALL, "--config.steps=60000", "--workdir", workdir, "--config.optimizer.decay=constant", "--timeout=10"]
    processes = pair(*long)
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and not (workdir / "checkpoints" / "10").exists():
        time.sleep(0.05)
    processes[lost].kill()
    killed = time.monotonic()
    _, error = processes[1 - lost].communicate(timeout=100)
    assert processes[1 - lost].returncode not in (0, None) and time.monotonic() - killed < 20  # 10, and to fall over
    sentence = error.strip().splitlines()[-1]
    assert (
        sentence.startswith(f"error: process {1 - lost} of 2 ended")
        and "start the same command on every host" in sentence
    )
    processes[lost].communicate()
    step = diffjax.load(workdir).step
    outputs = finish(pair(*long, f"--config.steps={step + 5}", "--allow_changes"))
    assert f"continuing at step {step}" in outputs[0][0]


@pytest.mark.parametrize(
    "variables, answer",
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, True),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "host-0"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "host-0:1234"}, True),
    ],
)
def test_the_environment_says_whether_there_are_several(variables, answer, monkeypatch):
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert diffjax.clustered() is answer


def test_processes_that_disagree_are_told_before_anything_compiles(tmp_path):
    arguments = [*SMALL, "--config.steps=30", "--workdir", tmp_path / "run"]
    processes = pair(*arguments, only_second=["--config.optimizer.learning_rate=1e-5"])
    for process in processes:
        out, err = process.communicate(timeout=200)
        assert "processes [1] have another config" in err and process.returncode == 2, err
    assert not (tmp_path / "run").exists()


def test_settings_that_lead_nowhere():
    assert "cannot connect the processes of this run" in refused(
        *SMALL, "--workdir", "/nonexistent/run", "--distributed"
    )

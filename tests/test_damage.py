"""Whatever becomes of the newest checkpoint or of the disk, train and sample recover the previous one or say why not.

What is printed is the table of both, one row for each kind of damage.
"""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import diffjax
from configs import toy_moons
from tests.commands import ROOT, TOY, environment

pytestmark = pytest.mark.usefixtures("frozen")

STEPS = {"log": 5, "evaluate": 40, "checkpoint": 10, "preview": 0, "snapshot": 0}


def config(steps):
    plain = toy_moons.get_config().to_dict() | dict(batch_size=64, steps=steps, every=dict(STEPS))
    plain["data"] |= dict(size=500)
    plain["optimizer"] |= dict(decay="constant")
    return plain


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints at steps 30 and 40."""
    workdir = tmp_path_factory.mktemp("damage") / "run"
    diffjax.train(config(40), workdir)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["30", "40"]
    return workdir


@pytest.fixture(scope="module")
def table(request):
    """Row -> (what train did, what sample did); printed when all is known."""
    rows: dict[str, tuple[str, str]] = {}
    yield rows
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(f"{name:34s} | {train:30s} | {sample}" for name, (train, sample) in rows.items()))


def largest(step: Path) -> Path:
    return max((step / "ema").glob("**/d/*"), key=lambda path: path.stat().st_size)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = {
    "a file is cut to half": lambda step: largest(step).write_bytes(largest(step).read_bytes()[:999]),
    "a bit is flipped": lambda step: flipped(largest(step)),
    "the marker is deleted": lambda step: (step / "_CHECKPOINT_METADATA").unlink(),
    "a file is deleted": lambda step: largest(step).unlink(),
    "a field is deleted": lambda step: shutil.rmtree(step / "ema"),
    "the folder is emptied": emptied,
    "the record is emptied": lambda step: (step / "meta" / "metadata").write_text(""),
}


def outcome(action, capsys) -> str:
    """What a command did, in words of the table; it would be "silent" if it had said nothing."""
    capsys.readouterr()
    try:
        step = action()
    except diffjax.InputError as error:
        assert "\n" not in str(error) and "step 40" in str(error), error
        return "refused"
    said = capsys.readouterr()
    step = step or int(said.out.split("continuing at step ")[1].split(":")[0])
    return f"recovered from step {step}" if "passed over checkpoint at step 40" in said.err else "silent"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("both", [False, True], ids=["newest", "all"])
def test_a_damaged_checkpoint(trained, tmp_path, capsys, table, damage, both):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    for step in ["40", "30"][: 1 + both]:
        DAMAGES[damage](workdir / "checkpoints" / step)

    def sample():
        model = diffjax.load(workdir)
        assert np.isfinite(model.sample(jax.random.key(0), 8)).all()
        return model.step

    sampled = outcome(sample, capsys)  # first: it changes nothing
    fitted = outcome(lambda: diffjax.train(config(40), workdir), capsys)
    table[f"{damage}{', in all' if both else ''}"] = fitted, sampled
    assert (fitted, sampled) == ("refused" if both else "recovered from step 30",) * 2
    if not both:  # and it ends where the undamaged run did
        for one, two in zip(*(jax.tree.leaves(diffjax.load(w).params) for w in (workdir, trained)), strict=True):
            np.testing.assert_array_equal(one, two)


def in_mounts(script: str) -> list[tuple[int, str]]:
    """Exit status and last line on stderr of each command of a script that may mount what only it sees."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount: no user namespaces")
    done = subprocess.run(["unshare", "-rm", "bash", "-c", PRELUDE + script], cwd=ROOT, env=environment(), timeout=300,
                          capture_output=True, text=True)  # fmt: skip
    assert "Traceback" not in done.stderr and done.returncode == 0, done.stderr
    parts = done.stderr.split("status ")
    return [(int(after.split()[0]), before.strip().splitlines()[-1]) for before, after in itertools.pairwise(parts)]


MORE = [*TOY, *"--config.steps=60 --config.batch_size=64 --config.data.size=500 --config.every.log=5".split(),
        *"--config.every.evaluate=40 --config.every.checkpoint=10 --config.every.preview=0".split(),
        *"--config.every.snapshot=0 --config.optimizer.decay=constant --allow_changes".split()]  # fmt: skip
PRELUDE = f"""
train() {{ {sys.executable} {" ".join(MORE)} --workdir $1; echo status $? >&2; }}
sample() {{ {sys.executable} sample.py --workdir $1 --num 8 --out $2; echo status $? >&2; }}
"""


@pytest.mark.slow
def test_a_full_disk(trained, tmp_path, table):
    """It stops at the first save, the last good one is intact, and the same command ends the run once there is room."""
    train, sample, elsewhere, again = in_mounts(f"""
        mount -t tmpfs -o size=16m tmpfs {tmp_path} && cp -r {trained} {tmp_path}/run
        head -c 100m /dev/zero > {tmp_path}/filler 2>/dev/null; truncate -s -100k {tmp_path}/filler
        train {tmp_path}/run; ls {tmp_path}/run/checkpoints >&2
        head -c 1m /dev/zero >> {tmp_path}/filler 2>/dev/null
        sample {tmp_path}/run {tmp_path}/out; sample {tmp_path}/run {trained}/out
        rm {tmp_path}/filler; train {tmp_path}/run""")
    assert train[0] == 2 and "at step 50" in train[1] and "are free; the steps before it are intact" in train[1]
    assert sample[0] == 2 and "cannot write samples" in sample[1] and "No space left" in sample[1]
    assert elsewhere[0] == again[0] == 0
    table["the disk is full"] = "refused, step 40 is intact", "refused; goes on elsewhere"


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(trained, tmp_path, table):
    """Also by its owner: it is mounted so."""
    train, sample, elsewhere = in_mounts(f"""
        cp -r {trained} {tmp_path}/run; mount --bind {tmp_path} {tmp_path}; mount -o remount,ro,bind {tmp_path}
        train {tmp_path}/run; sample {tmp_path}/run {tmp_path}/run/out; sample {tmp_path}/run {trained}/out""")
    assert train[0] == 2 and "not writable" in train[1]
    assert sample[0] == 2 and "cannot write samples" in sample[1]
    assert elsewhere[0] == 0
    table["the folder is read-only"] = "refused, step 40 is intact", "refused; goes on elsewhere"

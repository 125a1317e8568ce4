"""Kill a run at random instants, again and again, and see whether it ends as if it had been left alone.

    python -m tests.torture --kills 100

Every life of the run is ended by SIGKILL: a quarter of them at a random moment of their first seconds, while the
process compiles or restores, the others a random moment after the run has come to a random step, every second of them
as soon as a save is then under way.  What is left at the end is compared with an uninterrupted run: every leaf of the
state, every snapshot of the averages and every logged number, bit by bit.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from diffjax import training
from diffjax.experiment import build
from diffjax.program import mesh_of, program
from diffjax.record import read_record
from tests.commands import TOY, run, start

EVERY = dict(log=1, checkpoint=5, snapshot=40, evaluate=100, preview=0)
STARTUP = 4.0  # seconds


def command(workdir: Path, steps: int) -> list[str]:
    every = [f"--config.every.{name}={value}" for name, value in EVERY.items()]
    sizes = ["--config.batch_size=64", "--config.data.size=500", f"--config.steps={steps}"]
    return [*TOY, *sizes, *every, "--workdir", str(workdir)]


def torture(folder: Path, *, kills: int, steps: int, seed: int = 0) -> Counter:
    """Counts of what happened.  AssertionError unless the two runs are the same."""
    whole, killed, luck, seen = folder / "whole", folder / "killed", random.Random(seed), Counter()
    for workdir in (whole, killed):
        shutil.rmtree(workdir, ignore_errors=True)
    status, _, error = run(*command(whole, steps))
    assert status == 0, error
    early = kills // 4
    moments = [(0, luck.uniform(0, STARTUP)) for _ in range(early)]
    moments += [(1 + int(luck.random() * (steps - 1)), luck.uniform(0, 0.05)) for _ in range(kills - early)]
    for i, (target, delay) in enumerate(tqdm(sorted(moments), unit="kill", disable=None)):
        seen.update(_one_life(command(killed, steps), killed, target, None if target and i % 2 else delay))
    status, _, error = run(*command(killed, steps))
    assert status == 0, error
    seen["passed over as damaged"] += error.count("passed over")
    same(killed, whole)
    return seen


def _one_life(command: list[str], workdir: Path, target: int, delay: float | None) -> Counter:
    """Killed so many seconds after the step `target`, or, with None, in the first save after it."""
    process = start(*command)
    while target and process.poll() is None and _logged(workdir) < target:
        time.sleep(0.002)
    while delay is None and process.poll() is None and not _saving(workdir):
        time.sleep(0.002)
    time.sleep(delay or 0)
    process.kill()
    _, error = process.communicate()
    assert process.returncode in (-9, 0), error
    where = "during start-up" if not target else "inside a save" if _saving(workdir) else "between saves"
    return Counter({where if process.returncode else "after the end": 1,
                    "passed over as damaged": error.count("passed over")})  # fmt: skip


def _saving(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def _logged(workdir: Path) -> int:
    """The last step of metrics.jsonl."""
    try:
        with (workdir / "metrics.jsonl").open("rb") as file:
            file.seek(max(file.seek(0, 2) - 400, 0))
            return json.loads(file.read().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError):
        return 0


def same(one: Path, two: Path) -> None:
    """AssertionError unless two finished runs left the same state, the same snapshots and the same numbers."""
    assert _numbers(one) == _numbers(two)
    for name in ("checkpoints", "averages"):
        (a, b) = (_arrays(workdir, name) for workdir in (one, two))
        assert a.keys() == b.keys(), (sorted(a), sorted(b))
        for step in a:
            for path in a[step]:
                np.testing.assert_array_equal(a[step][path], b[step][path], err_msg=f"{name}/{step}: {path}")


def _numbers(workdir: Path) -> list[dict]:
    """metrics.jsonl without what is measured in seconds."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k in ("step", "loss", "grad_norm", "heldout_loss")} for line in lines]


def _arrays(workdir: Path, name: str) -> dict[int, dict[str, np.ndarray]]:
    """The last checkpoint of a run, or all its snapshots: step -> path -> bits."""
    record = read_record(workdir)
    assert record is not None
    experiment = build(record["config"])
    _, _, target = program(experiment, mesh_of(experiment.config))
    wanted = {"ema": target.ema} if name == "averages" else target
    with training.open_checkpoints(workdir / name, read_only=True) as store:
        steps = store.steps() if name == "averages" else store.steps()[-1:]
        assert steps
        states = {step: store.restore(wanted, step)[0] for step in steps}
    return {step: {path: _bits(leaf) for path, leaf in training.named(state).items()} for step, state in states.items()}


def _bits(leaf: jax.Array) -> np.ndarray:
    leaf = jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return np.frombuffer(np.asarray(leaf).tobytes(), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how many times the run is killed")
    parser.add_argument("--steps", type=int, default=1000, help="the length of the run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seen = torture(Path(folder), kills=options.kills, steps=options.steps, seed=options.seed)
    for where, count in sorted(seen.items()):
        print(f"{count:5d}  {where}")
    print(f"{options.kills} kills over {options.steps} steps in {time.monotonic() - begun:.0f} s: state, averages and "
          f"numbers are bit-identical to those of the uninterrupted run")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

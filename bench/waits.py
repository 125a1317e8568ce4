"""What training waits for: a save in the background, on a state of 50 million parameters, and data.

    python -m bench waits

Steps with a save at the first of every fifty, and steps without, in turns; the ratio is the median of the rounds'.
"""

import argparse
import json
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

import diffjax
from configs import digits
from diffjax import training
from diffjax.training.ema import warmed

WIDTH, DEPTH, ROWS = 3500, 4, 256


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench waits", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=3, help="of fifty steps with and fifty without a save (default: 3)"
    )
    options = parser.parse_args(arguments)
    saving(options.rounds)
    waiting("digits", digits.get_config().to_dict() | {"steps": 200})
    with tempfile.TemporaryDirectory() as folder:
        waiting("64 x 64 folder", pictures(Path(folder)))


def saving(rounds: int) -> None:
    """Prints with / without, and what one save takes by itself."""

    def init(key):
        return {f"w{i}": jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5 for i in range(DEPTH)}

    def loss(params, rows):
        x = rows["x"]
        for kernel in params.values():
            x = jnp.tanh(x @ kernel)
        return jnp.mean((x - rows["x"]) ** 2, axis=1)

    optimizer, average = optax.adam(1e-4), warmed(0.999)
    step = training.make_step(lambda key, batch: batch | {"t": jnp.zeros(ROWS)}, loss, optimizer, average)
    begin = partial(training.initial, init, optimizer, average)
    start, step, _ = training.compile_step(step, begin, training.make_mesh())
    state = start(jax.random.key(0))
    batch = {"x": np.random.default_rng(0).standard_normal((1, ROWS, WIDTH), np.float32)}
    state, _ = jax.block_until_ready(step(state, batch))
    folder = Path(tempfile.mkdtemp())
    times, number = {True: [], False: []}, 0
    with training.open_checkpoints(folder, keep_last=1, keep_best=0) as checkpoints:
        for _ in range(rounds):
            for save in (False, True):
                checkpoints.wait()
                begun = time.perf_counter()
                for i in range(50):
                    state, metrics = step(state, batch)
                    jax.block_until_ready(metrics)
                    number += 1
                    if save and not i:
                        checkpoints.save(number, state, meta={})
                        held = time.perf_counter() - begun
                        print(f"waits save: the loop stood still for {1e3 * held:.0f} ms, the first step included")
                times[save].append(time.perf_counter() - begun)
    shutil.rmtree(folder)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state._replace(key=None)))
    ratio = np.median(np.divide(times[True], times[False]))
    each = 1e3 * np.median(times[False]) / 50
    print(f"waits save: {size / 1e9:.2f} GB, a step {each:.0f} ms; fifty steps with a save / without: {ratio:.3f}")


def pictures(folder: Path) -> dict:
    """A config for two thousand files, and the files."""
    for i, x in enumerate(np.random.default_rng(0).integers(256, size=(2000, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(x).save(folder / f"{i}.png")
    config = digits.get_config().to_dict() | {"steps": 60, "batch_size": 32, "label_dropout": 0.0}
    config["data"] = dict(name="folder", path=str(folder), size=64, split="train", heldout="", flip=True, skip=False,
                          range=(-1.0, 1.0))  # fmt: skip
    config["net"] = dict(name="unet", width=32, multipliers=(1, 2, 2), blocks=1, attention=())
    return config


def waiting(name: str, config: dict) -> None:
    """Prints the share of the time in which the loop waited for data, the first line left out."""
    config["every"] |= dict(log=20, evaluate=0, preview=0, checkpoint=0, snapshot=0)
    with tempfile.TemporaryDirectory() as workdir:
        diffjax.train(config, workdir)
        lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    shares, speed = ([line[key] for line in lines[1:]] for key in ("data_wait", "steps_per_second"))
    print(f"waits data: {name}, {np.median(speed):.1f} steps a second: {100 * np.median(shares):.2f} % of the time, "
          f"{100 * max(shares):.2f} % at most")  # fmt: skip

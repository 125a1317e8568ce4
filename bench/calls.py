"""What a call of many training steps saves: time of a step at K steps a call over that at one, data included.

    taskset -c 0 python -m bench calls

Both sides take turns in each round; the ratio is the median of the rounds'.  The smaller the step, the more of it is
the call's: dispatch, and the threads of the host.
"""

import argparse
import time
from contextlib import closing
from itertools import count, repeat

import jax
import numpy as np

from configs import digits, toy_moons
from diffjax import data, training
from diffjax.experiment import batches, build
from diffjax.program import mesh_of, program

NARROW = dict(name="unet", width=8, multipliers=(1,), blocks=1, attention=(), dtype="float32")
ROWS = {  # config, changes of it, steps a round
    "toy_moons": (toy_moons, {}, 400),
    "digits_narrow": (digits, {"net": NARROW}, 100),
    "digits": (digits, {}, 20),
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench calls", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=ROWS, help="(default: all)")
    parser.add_argument("--steps", type=int, default=10, help="of a call (default: 10)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    options = parser.parse_args(arguments)
    for name in options.only:
        measure(name, options.steps, options.rounds)


def measure(name: str, many: int, rounds: int) -> None:
    module, changes, total = ROWS[name]
    experiment = build(module.get_config().to_dict() | changes)
    mesh = mesh_of(experiment.config)
    init, steps, _ = program(experiment, mesh)

    def seconds(n: int) -> float:
        """Of a step, in calls of n; the state is new, so that rounds are alike."""
        state = jax.block_until_ready(init(jax.random.key(0)))
        lengths = repeat(n, total // n)
        begun = time.perf_counter()
        with closing(training.ahead(data.stream(batches(experiment), 0), lengths, mesh)) as stream:
            for number, batch in zip(count(), stream):
                state, metrics = steps(state, batch)
                if number % 4 == 3:  # the loop of a run lets no more wait
                    jax.block_until_ready(metrics)
        jax.block_until_ready(state)
        return (time.perf_counter() - begun) / (total // n * n)

    first = [seconds(n) * total for n in (1, many)]  # compilation, and a round
    pairs = np.asarray([[seconds(n) for n in (1, many)] for _ in range(rounds)])
    alone, together = 1e3 * np.median(pairs, axis=0)
    ratios = np.sort(pairs[:, 1] / pairs[:, 0])
    print(f"calls {name:14s} {alone:8.3f} ms a step alone, {together:8.3f} in calls of {many}: "
          f"{np.median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
          f"first round {first[0]:.0f} and {first[1]:.0f} s", flush=True)  # fmt: skip

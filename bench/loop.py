"""What a sampler costs beyond its network: time a step with a free network, and against lone calls of a real one."""

import argparse

import numpy as np

from bench.engines import ours
from bench.growth import timed
from diffjax.diffusion.solvers import SOLVERS

STEPS = 50


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench loop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    rounds = parser.parse_args(argv).rounds
    for name in SOLVERS:
        case = ours.sampler(solver=name, steps=STEPS, batch=4, net="free")
        print(f"loop {name:15s} {np.median(timed([case], rounds)) / STEPS * 1e6:7.1f} us a step, free network")
    for net in ours.SAMPLED:
        how = dict(steps=STEPS, batch=4, net=net)
        loop, lone = timed([ours.sampler(solver="ddim", **how), ours.calls(**how)], rounds).T
        spread = max(loop.max() / loop.min(), lone.max() / lone.min())
        print(
            f"loop ddim, {net}: sampler / ({STEPS} x lone jitted network call) = {np.median(loop / lone):.3f}, "
            f"wanted 1.00, spread {spread:.2f}"
        )

"""What a sampler costs beyond its network: time a step with a free network, and against lone calls of a real one."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.grids import grid
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.sampling import generate
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.weights import WEIGHTS
from diffjax.nets import functional, unet

ROUNDS = 7


def timed(run, *arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    return time.perf_counter() - start


def main(argv: list[str]) -> None:
    process = gaussian(SCHEDULES["linear"](), PARAMETERIZATIONS["eps"](), WEIGHTS["simple"]())
    like, key = jnp.zeros((4, 32, 32, 3)), jax.random.key(0)
    for name, solver in SOLVERS.items():
        rule = solver(process)
        run = jax.jit(
            lambda key, ts, r=rule: generate(key, lambda x, t, c: 0.5 * x, r, process=process, ts=ts, like=like)
        )
        timed(run, key, grid(50))
        seconds = np.median([timed(run, key, grid(50)) for _ in range(ROUNDS)]) / 50
        print(f"loop {name:15s} {seconds * 1e6:7.1f} us a step, free network")

    net = functional(
        lambda rngs: unet((32, 32, 3), 0, rngs=rngs, width=32, multipliers=(1, 2), blocks=1, attention=(16,))
    )
    params, steps = net.init(jax.random.key(1)), 50
    alone = jax.jit(lambda params, x, t: net.apply(params, x, t))
    rule = SOLVERS["ddim"](process)

    def denoise(params):
        return lambda x, t, c: process.estimate(net.apply(params, x, t), x, t)

    run = jax.jit(lambda key, ts, params: generate(key, denoise(params), rule, process=process, ts=ts, like=like))
    arguments = (key, grid(steps), params), (params, like, jnp.full(4, 0.5))
    timed(run, *arguments[0]), timed(alone, *arguments[1])
    ratios = []
    for _ in range(ROUNDS):  # interleaved: both sides see the same machine
        calls = sum(timed(alone, *arguments[1]) for _ in range(steps))
        ratios.append(timed(run, *arguments[0]) / calls)
    print(f"loop ddim, UNet: sampler / ({steps} x lone jitted network call) = {np.median(ratios):.3f}")

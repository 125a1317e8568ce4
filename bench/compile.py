"""What a sampler costs to compile: trace, lower and compile at 10, 100 and 1000 steps, interleaved, no cache."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion.denoiser import denoiser
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.grids import grid
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.sampling import generate
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.weights import WEIGHTS
from diffjax.nets import functional, unet

STEPS, ROUNDS = (10, 100, 1000), 5


def seconds(solver: str, steps: int) -> float:
    """From Python functions to an executable."""
    process = gaussian(SCHEDULES["cosine"](), PARAMETERIZATIONS["v"](), WEIGHTS["snr"]())
    net = functional(
        lambda rngs: unet((8, 8, 1), 10, rngs=rngs, width=16, multipliers=(1, 2), blocks=1, attention=(4,))
    )
    denoise, rule, ts = denoiser(process, net.apply), SOLVERS[solver](process), grid(steps)
    params = jax.eval_shape(net.init, jax.random.key(0))

    def run(params, key, ts):
        like = jnp.zeros((16, 8, 8, 1))
        return generate(key, lambda xt, t, c: denoise(params, xt, t, c), rule, process=process, ts=ts, like=like)

    jax.clear_caches()
    start = time.perf_counter()
    jax.jit(run).lower(params, jax.random.key(0), ts).compile()
    return time.perf_counter() - start


def main(argv: list[str]) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    for solver in ("ancestral", "dpmpp_2m", "heun"):
        rounds = np.array([[seconds(solver, steps) for steps in STEPS] for _ in range(ROUNDS)])
        ratio = np.median(rounds[:, -1] / rounds[:, 0])
        medians = ", ".join(
            f"{steps} steps {median:.2f} s" for steps, median in zip(STEPS, np.median(rounds, 0), strict=True)
        )
        print(f"compile {solver:10s} {medians}; ratio of {STEPS[-1]} to {STEPS[0]}: {ratio:.3f}", flush=True)

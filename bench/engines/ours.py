"""Our side of a duel.  `compiled` is what torch is asked; ours always is."""

from importlib.metadata import version

import diffjax

diffjax.prepare(cache=False)  # as every script does, before numpy and jax

import jax
import jax.numpy as jnp

from bench.engines.network import levels, network_case, noise
from bench.engines.serve import Case, serve
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.grids import grid
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.sampling import generate
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.weights import WEIGHTS
from diffjax.nets import NETS, functional
from diffjax.training import compile_once

DDPM = dict(width=64, multipliers=(1, 2, 2), blocks=2, attention=(16,), heads=2)
SAMPLED = {"unet": ("ddpm", DDPM), "dit": ("dit", dict(width=256, depth=4, heads=4, patch=4))}  # beside the free one


def network(name, shape, classes, **options):
    net = functional(lambda rngs: NETS[name](shape, classes, rngs=rngs, **options))
    return net, compile_once(net.init)(jax.random.key(0))


def unet(*, batch, step, half=False, compiled=True) -> Case:
    net, params = network("ddpm", (32, 32, 3), 0, dtype="bfloat16" if half else "float32", **DDPM)
    return network_case(net.apply, params, (noise(batch, 32, 32, 3), levels(batch)), step=step)


def dit(*, batch, size, patch, step, depth=0, half=False, compiled=True) -> Case:
    dtype = "bfloat16" if half else "float32"
    net, params = network("dit", (32, 32, 4), 1000, size=size, patch=patch, depth=depth, dtype=dtype)
    inputs = noise(batch, 32, 32, 4), levels(batch), jnp.arange(batch) % 1000
    return network_case(net.apply, params, inputs, step=step)


def sampled(name: str):
    """(apply, params) of a network to sample from; "free" answers with half of what it is given."""
    if name == "free":
        return (lambda params, x, t, cond: 0.5 * x), {}
    row, options = SAMPLED[name]
    net, params = network(row, (32, 32, 3), 0, **options)
    return net.apply, params


def sampler(*, solver, steps, batch, net) -> Case:
    process = gaussian(SCHEDULES["linear"](), PARAMETERIZATIONS["eps"](), WEIGHTS["simple"]())
    like, rule, ts = jnp.zeros((batch, 32, 32, 3)), SOLVERS[solver](process), grid(steps)
    raw, params = sampled(net)

    @jax.jit
    def run(params, key, ts):
        denoise = lambda x, t, cond: process.estimate(raw(params, x, t, cond), x, t)  # noqa: E731
        return generate(key, denoise, rule, process=process, ts=ts, like=like)

    key = jax.random.key(0)
    return Case(lambda: run(params, key, ts).block_until_ready(), {})


def calls(*, steps, batch, net) -> Case:
    """So many lone calls of the jitted network that `sampler` samples from, each waited for."""
    raw, params = sampled(net)
    alone, x, t = jax.jit(raw), noise(batch, 32, 32, 3), levels(batch)

    def run():
        for _ in range(steps):
            alone(params, x, t, None).block_until_ready()

    return Case(run, {})


def predictor_corrector(*, steps, batch) -> Case:
    process = gaussian(SCHEDULES["ve"](), PARAMETERIZATIONS["eps"](), WEIGHTS["simple"]())
    like, rule, ts = jnp.zeros((batch, 32, 32, 3)), SOLVERS["predictor_corrector"](process), grid(steps)

    @jax.jit
    def run(key, ts):
        denoise = lambda x, t, cond: process.estimate(-0.5 * x, x, t)  # noqa: E731
        return generate(key, denoise, rule, process=process, ts=ts, like=like)

    key = jax.random.key(0)
    return Case(lambda: run(key, ts).block_until_ready(), {})


if __name__ == "__main__":
    serve(
        {"unet": unet, "dit": dit, "sampler": sampler, "calls": calls, "predictor_corrector": predictor_corrector},
        {name: version(name) for name in ("jax", "flax", "optax")},
    )

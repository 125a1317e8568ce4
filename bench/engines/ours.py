"""Our side of a duel.  `compiled` is what torch is asked; ours always is."""

from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.engines.serve import Case, serve
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.grids import grid
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.sampling import generate
from diffjax.diffusion.schedules import SCHEDULES
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.weights import WEIGHTS
from diffjax.nets import NETS, functional

DDPM = dict(width=64, multipliers=(1, 2, 2), blocks=2, attention=(16,), heads=2)


def network(name, shape, classes, **options):
    net = functional(lambda rngs: NETS[name](shape, classes, rngs=rngs, **options))
    return net, jax.jit(net.init)(jax.random.key(0))


def unet(*, batch, step, half=False, compiled=True) -> Case:
    built = network("ddpm", (32, 32, 3), 0, dtype="bfloat16" if half else "float32", **DDPM)
    return _network(*built, (batch, 32, 32, 3), step=step)


def dit(*, batch, size, patch, step, half=False, compiled=True) -> Case:
    label, dtype = jnp.arange(batch) % 1000, "bfloat16" if half else "float32"
    built = network("dit", (32, 32, 4), 1000, size=size, patch=patch, dtype=dtype)
    return _network(*built, (batch, 32, 32, 4), step=step, label=label)


def _network(net, params, shape, *, step, label=None) -> Case:
    draw = np.random.default_rng(0)
    x, target = (jnp.asarray(draw.standard_normal(shape), jnp.float32) for _ in range(2))
    level = jnp.asarray(draw.random(shape[0]), jnp.float32)
    optimizer = optax.adam(1e-4)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    forward = jax.jit(net.apply)

    @partial(jax.jit, donate_argnums=0)
    def train(state, x, level, label, target):
        params, opt = state
        loss = lambda params: jnp.mean((net.apply(params, x, level, label) - target) ** 2)  # noqa: E731
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = optimizer.update(grads, opt, params)
        return (optax.apply_updates(params, updates), opt), value

    if not step:
        return Case(lambda: forward(params, x, level, label).block_until_ready(), {"parameters": parameters})
    held = [(params, jax.jit(optimizer.init)(params))]
    compiled = train.lower(held[0], x, level, label, target).compile()
    memory = compiled.memory_analysis()

    def run():
        held[0], value = compiled(held[0], x, level, label, target)
        return jax.block_until_ready((held, value))

    return Case(run, {"parameters": parameters, "temporaries": memory.temp_size_in_bytes / 2**20})


def sampler(*, solver, steps, batch, net) -> Case:
    process = gaussian(SCHEDULES["linear"](), PARAMETERIZATIONS["eps"](), WEIGHTS["simple"]())
    like, rule, ts = jnp.zeros((batch, 32, 32, 3)), SOLVERS[solver](process), grid(steps)
    if net == "unet":
        model, params = network("ddpm", (32, 32, 3), 0, **DDPM)
        raw = model.apply
    else:
        raw, params = (lambda params, x, t, cond: 0.5 * x), {}

    @jax.jit
    def run(params, key, ts):
        denoise = lambda x, t, cond: process.estimate(raw(params, x, t, cond), x, t)  # noqa: E731
        return generate(key, denoise, rule, process=process, ts=ts, like=like)

    key = jax.random.key(0)
    return Case(lambda: run(params, key, ts).block_until_ready(), {})


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
        {"unet": unet, "dit": dit, "sampler": sampler, "predictor_corrector": predictor_corrector},
        {name: version(name) for name in ("jax", "flax", "optax")},
    )

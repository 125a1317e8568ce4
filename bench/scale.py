"""Predicted step times on machines that nobody here has, from counted arithmetic and bytes: a bound, not a measurement.

python -m bench scale --out docs/scale.md
"""

import argparse
import itertools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import imagenet64
from diffjax.data import Source, absent
from diffjax.experiment import build
from diffjax.program import flops_per_step
from diffjax.training.cost import ACCELERATORS, equations
from diffjax.training.roofline import AGAIN, Plan, Work, held, terms

CHIPS = 8, 64, 512, 4096
MACHINES = "v5p", "v6e", "h200"
BATCH = 4096


class Model(NamedTuple):
    """What one example costs, and the model itself."""

    name: str
    flops: float  # of a step, forward and backward
    parameters: int
    outputs: float  # numbers that products give, forward
    reduced: float  # of those, what tensor parallelism adds up


def dit_xl_2() -> Model:
    """DiT-XL/2 on 256 x 256 latents (Peebles & Xie 2023): 28 layers, 1152 wide, 256 tokens; counted by hand.

    Products: 12 d^2 a token and layer (attention 4, MLP 8), 6 d^2 an image and layer (adaLN), 2 T^2 d a layer for
    attention.  The paper's 118.6 G multiply-adds forward are these.
    """
    layers, d, tokens = 28, 1152, 256
    products = layers * (12 * d**2 * tokens + 2 * tokens**2 * d + 6 * d**2)
    parameters = layers * 18 * d**2 + 1000 * d
    return Model("DiT-XL/2, 256 x 256", 3 * 2 * products, parameters, layers * tokens * 10 * d, layers * tokens * 2 * d)


def unet() -> Model:
    """The network of configs/imagenet64.py; counted in its program."""
    config = imagenet64.get_config().to_dict() | {"batch_size": 8}
    experiment = build(config, source=Source(absent, 1000, (64, 64, 3), 1000))
    params = jax.eval_shape(experiment.net.init, jax.random.key(0))
    x, t = jnp.zeros((1, 64, 64, 3)), jnp.zeros(1)
    program = jax.make_jaxpr(experiment.net.apply)(params, x, t, jnp.zeros(1, jnp.int32))
    outputs = sum(products(program.jaxpr))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Model("UNet, ImageNet 64 x 64", flops_per_step(experiment) / 8, count, outputs, outputs / 2)


def products(jaxpr) -> list[int]:
    """The sizes of what the products and convolutions of a program give; one in a loop counts once."""
    kinds = "dot_general", "conv_general_dilated"
    found = [equation for equation, _ in equations(jaxpr) if equation.primitive.name in kinds]
    return [int(np.prod(out.aval.shape)) for equation in found for out in equation.outvars]


def work(model: Model) -> Work:
    """A step in bfloat16 with float32 weights, two moments and two averages."""
    weights = 4.0 * model.parameters
    return Work(model.flops * BATCH, weights, 5 * weights, 2 * model.outputs * BATCH, 2 * 2 * model.reduced * BATCH)


def plans(chips: int):
    """Every mesh that leaves each device a row."""
    powers = [2**i for i in range(13) if 2**i <= chips]
    for fsdp, tensor, remat in itertools.product(powers, (1, 2, 4, 8), AGAIN):
        if fsdp * tensor <= chips and chips // tensor <= BATCH:
            yield Plan(chips, fsdp, tensor, remat)


def best(model: Model, name: str, chips: int) -> tuple[Plan, dict[str, float]]:
    """The plan of least time among those that fit 90 % of the memory; the sum of the terms breaks ties."""
    chip, step = ACCELERATORS[name], work(model)
    fitting = [plan for plan in plans(chips) if held(step, plan) < 0.9 * chip.memory]
    found = [(max(t.values()), sum(t.values()), plan, t) for plan in fitting for t in [terms(step, plan, chip)]]
    _, _, plan, parts = min(found, key=lambda row: row[:2])
    return plan, parts


def table(model: Model, name: str) -> list[str]:
    """A row for every number of chips."""
    lines = ["| chips | mesh data x fsdp x tensor, remat | arithmetic | memory | links | network | step, ms | MFU |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for chips in CHIPS:
        plan, parts = best(model, name, chips)
        least, most = max(parts.values()), sum(parts.values())
        ideal = model.flops * BATCH / (chips * ACCELERATORS[name].flops)
        mesh = f"{chips // plan.fsdp // plan.tensor} x {plan.fsdp} x {plan.tensor}, {plan.remat}"
        columns = " | ".join(f"{1e3 * parts[key]:.2f}" for key in ("arithmetic", "memory", "links", "network"))
        lines.append(f"| {chips} | {mesh} | {columns} | {1e3 * least:.2f} to {1e3 * most:.2f} "
                     f"| {100 * ideal / most:.0f} to {100 * ideal / least:.0f} % |")  # fmt: skip
    return lines


def stops(model: Model, name: str) -> str:
    """The number of chips from which on something else than arithmetic takes longest."""
    for chips in (2**i for i in range(3, 13)):
        _, parts = best(model, name, chips)
        longest = max(parts, key=lambda key: parts[key])
        if longest != "arithmetic":
            return f"At {chips} chips {longest} takes longer than arithmetic: there it stops scaling."
    return "Arithmetic takes longest up to 4,096 chips."


HEAD = f"""# Scale, on paper

Generated by `python -m bench scale --out docs/scale.md`.  **A prediction**: none of these machines has been measured.

It is a roofline ([its terms](../diffjax/training/roofline.py), [their test](../tests/training/test_roofline.py)):
counted FLOPs and bytes over what the makers state.  The shorter time is a step whose terms overlap entirely, the longer
one whose terms follow each other; kernels below their peak come on top.

A global batch of {BATCH:,} at every size, bfloat16 arithmetic, float32 weights with two moments and two averages; the
mesh is the fastest that fits 90 % of the memory.  Milliseconds; MFU counts the model's FLOPs, without what is computed
again.
"""
TAIL = """
Constants of the machines: `ACCELERATORS` in [cost.py](../diffjax/training/cost.py).  Not predicted: input, checkpoints,
stragglers, and what the network between slices is shared with.
"""


def page() -> str:
    """The document."""
    lines = [HEAD]
    for model in (dit_xl_2(), unet()):
        lines += [f"## {model.name}", ""]
        lines += [f"{model.parameters / 1e6:.0f} million parameters, {model.flops / 1e9:.0f} GFLOP a step and example, "
                  f"{2 * model.outputs / 1e6:.1f} MB of activations an example.", ""]  # fmt: skip
        for name in MACHINES:
            lines += [f"### {name}", "", *table(model, name), "", stops(model, name), ""]
    return "\n".join(lines).rstrip() + "\n" + TAIL


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument("--out", type=Path, help="file to write (default: print)")
    options = parser.parse_args(arguments)
    text = page()
    if options.out:
        options.out.write_text(text)
    else:
        print(text)

"""Inception v3 (Szegedy et al. 2016) as the graph of 2015-12-05 has it, in whose features the FID is measured (Heusel
et al. 2017).  It is a network of its own, not the paper's:

    y = relu(scale (conv(x) - mean) / sqrt(var + 1e-3) + bias)     every unit; statistics are parameters like others
    averages over 3 x 3 are of what is inside of the picture       blocks 5b to 7b
    the pooled branch of the last block takes maxima               where all others take averages
    1,008 classes                                                  of which 1,000 are ImageNet's

A block is a table: chains of units side by side, their answers one after another along the channels.  A pair of units
at the end of a chain are side by side too.  Names are those of the graph.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

EPS = 1e-3
SMALLEST = 75  # side of a picture of which the last grid still has a position


class Unit(NamedTuple):
    """A convolution, its normalisation, relu: inner ones keep the size, those of stride 2 have no padding."""

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


def halved(channels: int) -> Unit:
    return Unit(channels, (3, 3), 2, "VALID")


def average(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """The mean of the neighbours that there are."""
    return nnx.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)


def maximum(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    return nnx.max_pool(x, (3, 3), strides=(1, 1), padding="SAME")


def pooled(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Maxima, at half the size."""
    return nnx.max_pool(x, (3, 3), strides=(2, 2))


Pool = Callable[[Array], Array]
Step = Unit | tuple[Unit, Unit] | Pool
Block = dict[str, tuple[Step, ...]]

ROW, COLUMN, TALL, WIDE = (1, 7), (7, 1), (3, 1), (1, 3)


def block_a(pool: int) -> Block:
    return {
        "branch1x1": (Unit(64),),
        "branch5x5": (Unit(48), Unit(64, (5, 5))),
        "branch3x3dbl": (Unit(64), Unit(96, (3, 3)), Unit(96, (3, 3))),
        "branch_pool": (average, Unit(pool)),
    }


def block_c(inner: int) -> Block:
    long = (Unit(inner), Unit(inner, COLUMN), Unit(inner, ROW), Unit(inner, COLUMN), Unit(192, ROW))
    return {
        "branch1x1": (Unit(192),),
        "branch7x7": (Unit(inner), Unit(inner, ROW), Unit(192, COLUMN)),
        "branch7x7dbl": long,
        "branch_pool": (average, Unit(192)),
    }


def block_e(pool: Pool) -> Block:
    fork = (Unit(384, WIDE), Unit(384, TALL))
    return {
        "branch1x1": (Unit(320),),
        "branch3x3": (Unit(384), fork),
        "branch3x3dbl": (Unit(448), Unit(384, (3, 3)), fork),
        "branch_pool": (pool, Unit(192)),
    }


STEM: dict[str, Unit | Pool] = {
    "Conv2d_1a_3x3": halved(32),
    "Conv2d_2a_3x3": Unit(32, (3, 3), padding="VALID"),
    "Conv2d_2b_3x3": Unit(64, (3, 3)),
    "pool_1": pooled,
    "Conv2d_3b_1x1": Unit(80),
    "Conv2d_4a_3x3": Unit(192, (3, 3), padding="VALID"),
    "pool_2": pooled,
}
BLOCKS: dict[str, Block] = {
    "Mixed_5b": block_a(32),
    "Mixed_5c": block_a(64),
    "Mixed_5d": block_a(64),
    "Mixed_6a": {
        "branch3x3": (halved(384),),
        "branch3x3dbl": (Unit(64), Unit(96, (3, 3)), halved(96)),
        "branch_pool": (pooled,),
    },
    "Mixed_6b": block_c(128),
    "Mixed_6c": block_c(160),
    "Mixed_6d": block_c(160),
    "Mixed_6e": block_c(192),
    "Mixed_7a": {
        "branch3x3": (Unit(192), halved(320)),
        "branch7x7x3": (Unit(192), Unit(192, ROW), Unit(192, COLUMN), halved(192)),
        "branch_pool": (pooled,),
    },
    "Mixed_7b": block_e(average),
    "Mixed_7c": block_e(maximum),
}


class Frozen(nnx.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) by statistics that are known, then relu."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.scale, self.bias = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))
        self.mean, self.var = nnx.Param(jnp.zeros(channels)), nnx.Param(jnp.ones(channels))

    def __call__(self, x):
        gain = self.scale[...] * jax.lax.rsqrt(self.var[...] + EPS)
        shift = self.bias[...] - self.mean[...] * gain
        return jax.nn.relu(x * gain[None, None, None] + shift[None, None, None])


class Convolution(nnx.Module):
    """One Unit."""

    def __init__(self, inputs: int, unit: Unit, *, rngs: nnx.Rngs):
        sides = (unit.stride,) * 2
        self.conv = nnx.Conv(inputs, unit.channels, unit.kernel, sides, padding=unit.padding, use_bias=False, rngs=rngs)
        self.norm = Frozen(unit.channels, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.conv(x))


class Branches(nnx.Module):
    """A row of BLOCKS: x through every chain of it."""

    def __init__(self, inputs: int, block: str, *, thin: int, rngs: nnx.Rngs):
        self.block, self.units, self.outputs = block, nnx.Dict(), 0
        for branch, chain in BLOCKS[block].items():
            channels = inputs
            for named in named_units(branch, chain):
                made = {name: _thinned(unit, thin) for name, unit in named.items()}
                self.units.update({name: Convolution(channels, unit, rngs=rngs) for name, unit in made.items()})
                channels = sum(unit.channels for unit in made.values()) or channels
            self.outputs += channels

    def __call__(self, x):
        return jnp.concatenate([self._branch(x, *entry) for entry in BLOCKS[self.block].items()], axis=-1)

    def _branch(self, x, branch, chain):
        for step, named in zip(chain, named_units(branch, chain), strict=True):
            beside: list[Callable] = [step] if callable(step) else [self.units[name] for name in named]
            x = jnp.concatenate([part(x) for part in beside], axis=-1)
        return x


def named_units(branch: str, chain: tuple[Step, ...]) -> list[dict[str, Unit]]:
    """The units of every step by name, none where it pools: branch3x3_1, then branch3x3_2a beside branch3x3_2b.

    One that is alone in its branch is branch1x1.
    """
    steps = [(step,) if isinstance(step, Unit) else step if isinstance(step, tuple) else () for step in chain]
    alone, found, number = sum(map(len, steps)) == 1, [], 0
    for units in steps:
        number += bool(units)
        letters = "ab" if len(units) > 1 else ("",)
        found.append({(branch if alone else f"{branch}_{number}{a}"): unit for a, unit in zip(letters, units)})  # noqa: B905
    return found


class Inception(nnx.Module):
    """(x [B, H, W, 3] in [-1, 1]) -> (features [B, 2048], logits [B, 1008]); the features are means over positions."""

    def __init__(self, *, thin: int, classes: int, rngs: nnx.Rngs):
        self.stem, self.mixed, channels = nnx.Dict(), nnx.Dict(), 3
        for name, step in STEM.items():
            if isinstance(step, Unit):
                unit = _thinned(step, thin)
                self.stem[name] = Convolution(channels, unit, rngs=rngs)
                channels = unit.channels
        for name in BLOCKS:
            self.mixed[name] = Branches(channels, name, thin=thin, rngs=rngs)
            channels = self.mixed[name].outputs
        self.head = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B F"], Float[Array, "B K"]]:
        if min(x.shape[1:3]) < SMALLEST:
            raise ValueError(f"inception needs pictures of at least {SMALLEST} x {SMALLEST}; got {x.shape[1:3]}")
        for name, step in STEM.items():
            x = self.stem[name](x) if isinstance(step, Unit) else step(x)
        for name in BLOCKS:
            x = self.mixed[name](x)
        features = x.mean((1, 2))
        return features, self.head(features)


def inception(*, rngs: nnx.Rngs, thin: int = 1, classes: int = 1008) -> Inception:
    """The FID's Inception v3; `thin` divides every width, by a divisor of 16.  Raises ValueError for another."""
    if thin < 1 or 16 % thin:
        raise ValueError(f"thin must be a divisor of 16, for it divides every width; got {thin}")
    return Inception(thin=thin, classes=classes, rngs=rngs)


def _thinned(unit: Unit, thin: int) -> Unit:
    return unit._replace(channels=unit.channels // thin)

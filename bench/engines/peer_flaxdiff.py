"""FlaxDiff's side of a duel: its UNet and its DiT in sizes near ours, and its DDIM loop.

Its UNet wants attention in the last level and knows no label; its DiT turns queries and keys, and its class is a text.
"""

import os
from importlib.metadata import version

os.environ["TQDM_DISABLE"] = "1"  # its loop draws a bar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flaxdiff.inputs import DiffusionInputConfig
from flaxdiff.models.simple_dit import SimpleDiT
from flaxdiff.models.simple_unet import Unet
from flaxdiff.predictors import EpsilonPredictionTransform
from flaxdiff.samplers.ddim import DDIMSampler
from flaxdiff.schedulers import LinearNoiseSchedule

from bench.engines.network import levels, network_case, noise
from bench.engines.serve import Case, serve

SIZES = {"S": (384, 12, 6), "B": (768, 12, 12)}  # width, depth, heads


def unet(*, batch, step) -> Case:
    attention = {"heads": 2, "use_self_and_cross": False}
    net = Unet(feature_depths=(64, 128, 128), attention_configs=(None, attention, attention), norm_groups=32)
    return _network(net, (noise(batch, 32, 32, 3), levels(batch), noise(batch, 1, 256, seed=3)), step=step)


def dit(*, batch, size, patch, step) -> Case:
    width, depth, heads = SIZES[size]
    net = SimpleDiT(output_channels=4, patch_size=patch, emb_features=width, num_layers=depth, num_heads=heads)
    return _network(net, (noise(batch, 32, 32, 4), levels(batch), noise(batch, 1, width, seed=3)), step=step)


def _network(net, inputs, *, step) -> Case:
    return network_case(net.apply, jax.jit(net.init)(jax.random.key(0), *inputs), inputs, step=step)


class Free(nn.Module):
    """Answers with half of what it is given."""

    def __call__(self, x, t):
        return 0.5 * x


def sampler(*, solver, steps, batch, net) -> Case:
    assert (solver, net) == ("ddim", "free")
    inputs = DiffusionInputConfig(sample_data_key="image", sample_data_shape=(32, 32, 3), conditions=[])
    loop = DDIMSampler(Free(), LinearNoiseSchedule(1000), EpsilonPredictionTransform(), inputs)

    def run():
        return jnp.asarray(loop.generate_samples({}, batch, 32, diffusion_steps=steps)).block_until_ready()

    return Case(run, {})


if __name__ == "__main__":
    serve({"unet": unet, "dit": dit, "sampler": sampler}, {name: version(name) for name in ("flaxdiff", "jax")})

"""hackable_diffusion's side of a duel: its UNet in a size near ours, and its DDIM loop.  It has no DiT.

It is no package: name a copy of https://github.com/google/hackable_diffusion in PYTHONPATH.
"""

from importlib.metadata import version

import jax
from hackable_diffusion import hd
from hackable_diffusion.lib.architecture import arch_typing, conditioning_encoder
from hackable_diffusion.lib.architecture import unet as unets
from hackable_diffusion.lib.corruption import gaussian, schedules
from hackable_diffusion.lib.sampling import gaussian_step_sampler, sampling, time_scheduling

from bench.engines.network import levels, network_case, noise
from bench.engines.serve import Case, serve

BACKBONE = unets.Unet(
    base_channels=64, channels_multiplier=(1, 2, 2), num_residual_blocks=(2, 2, 2),
    downsample_method=arch_typing.DownsampleType.AVG_POOL, upsample_method=arch_typing.UpsampleType.NEAREST,
    dropout_rate=(0.0, 0.0, 0.0), bottleneck_dropout_rate=0.0,
    self_attention_bool=(False, True, False), cross_attention_bool=(False, False, False),
    attention_num_heads=arch_typing.INVALID_INT, attention_head_dim=64, attention_normalize_qk=False,
    attention_use_rope=False, attention_rope_position_type=arch_typing.RoPEPositionType.SQUARE,
    normalization_type=arch_typing.NormalizationType.GROUP_NORM, normalization_num_groups=32, activation="silu",
    skip_connection_method=arch_typing.SkipConnectionMethod.UNNORMALIZED_ADD, zero_init_output=False,
)  # fmt: skip
ENCODER = conditioning_encoder.ConditioningEncoder(
    time_embedder=conditioning_encoder.SinusoidalTimeEmbedder(activation="silu", embedding_dim=64, num_features=256),
    conditioning_embedders={}, embedding_merging_method=arch_typing.EmbeddingMergeMethod.SUM,
    conditioning_rules={"time": arch_typing.ConditioningMechanism.ADAPTIVE_NORM},
)  # fmt: skip


def unet(*, batch, step) -> Case:
    net = hd.diffusion_network.DiffusionNetwork(
        backbone_network=BACKBONE, conditioning_encoder=ENCODER, prediction_type="epsilon"
    )

    def apply(params, x, t):
        return net.apply(params, time=t, xt=x, conditioning={}, is_training=False)["epsilon"]

    init = jax.jit(lambda key: net.initialize_variables((batch, 32, 32, 3), {}, key))
    t = levels(batch)[:, None, None, None]
    return network_case(apply, init(jax.random.key(0)), (noise(batch, 32, 32, 3), t), step=step)


def sampler(*, solver, steps, batch, net) -> Case:
    assert (solver, net) == ("ddim", "free")
    process = gaussian.GaussianProcess(schedule=schedules.CosineSchedule())
    loop = sampling.DiffusionSampler(
        time_schedule=time_scheduling.UniformTimeSchedule(),
        stepper=gaussian_step_sampler.DDIMStep(corruption_process=process, stoch_coeff=0.0),
        num_steps=steps + 1,  # it counts times, not calls
    )

    @jax.jit
    def run(key):
        start, walk = jax.random.split(key)
        free = lambda xt, conditioning, time: {"epsilon": 0.5 * xt}  # noqa: E731
        last, _ = loop(inference_fn=free, rng=walk, initial_noise=jax.random.normal(start, (batch, 32, 32, 3)))
        return last.xt

    key = jax.random.key(0)
    return Case(lambda: run(key).block_until_ready(), {})


if __name__ == "__main__":
    serve({"unet": unet, "sampler": sampler}, {"hackable_diffusion": "", "jax": version("jax")})

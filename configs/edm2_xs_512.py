"""ImageNet, 512 x 512, by class, in latents of 64 x 64 x 4: the smallest network of EDM2, of 125 million parameters.

The training is that of EDM2 (Karras et al. 2024, config G, size XS), but for its learned uncertainty.

    python train.py --config configs/edm2_xs_512.py --workdir runs/edm2_xs_512

Data: latents of Stable Diffusion's encoder, every channel shifted to mean 0 and scaled to a standard deviation of 0.5,
written once by `python -m diffjax.cache --encode ... --out data/imagenet512_latents`.
Hardware: the authors advise 32 A100 or more (2.1 billion images).
Measured: not run here.  The paper reports FID 3.53 without guidance; it guides by a second, unconditional network,
hence no label_dropout here.  S to XXL: net.width 192 to 448, and lower learning rates.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            steps=1_048_576,  # 2^31 images
            batch_size=2048,
            data=dict(
                name="records", path="data/imagenet512_latents",
                split="train", heldout="validation", flip=False, skip=False, range=(-1.0, 1.0),
            ),
            schedule=dict(name="edm", sigma_min=0.002, sigma_max=80.0, rho=7.0),
            parameterization=dict(name="edm", data_std=0.5),
            weight=dict(name="edm", data_std=0.5),
            times=dict(name="log_normal_sigma", mean=-0.4, std=1.0),
            process=dict(name="gaussian"),
            net=dict(
                name="edm2", width=128, multipliers=(1, 2, 3, 4), blocks=3, attention=(16, 8), head_width=64,
                dropout=0.0, dtype="bfloat16",
            ),
            label_dropout=0.0,
            optimizer=dict(
                name="adam", b1=0.9, b2=0.99, learning_rate=0.012, warmup=4_883,  # 10 million images
                decay=dict(name="inverse_sqrt", after=70_000), clip=0.0,
            ),
            ema=dict(name="power", stds=(0.05, 0.10)),
            steps_per_call=1,
            every=dict(log=100, evaluate=10_000, checkpoint=5_000, preview=10_000, snapshot=4_096),
            keep=dict(last=2, best=1),
            loader=dict(workers=16, threads=2, prefetch=8),
            mesh=dict(fsdp=1, tensor=1),
            memory=dict(accumulate=1, remat="none", offload=False),
            watch=dict(spike=0.0),
            sampler=dict(solver="heun", steps=32, num=100),
        )
    )  # fmt: skip

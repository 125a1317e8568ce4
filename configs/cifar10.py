"""CIFAR-10, 32 x 32, by class: DDPM++, 56 million parameters.

Network and training are those of EDM (Karras et al. 2022, table 7, "CIFAR-10").

    python train.py --config configs/cifar10.py --workdir runs/cifar10

Data: tensorflow-datasets' cifar10, prepared once as array_record (diffjax/data/tfds.py says how).
Hardware: the paper used 8 V100 for about two days (200 million images); bfloat16 and --config.mesh.fsdp suit a TPU or
GPU host.
Measured: not run here.  The paper reports FID 1.79 with its augmentation pipeline, which this config does not have.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            steps=390_625,  # 200 million images
            batch_size=512,
            data=dict(
                name="tfds", dataset="cifar10", data_dir="", size=0,
                split="train", heldout="test", flip=True, skip=False, range=(-1.0, 1.0),
            ),
            schedule=dict(name="edm", sigma_min=0.002, sigma_max=80.0, rho=7.0),
            parameterization=dict(name="edm", data_std=0.5),
            weight=dict(name="edm", data_std=0.5),
            times=dict(name="log_normal_sigma", mean=-1.2, std=1.2),
            process=dict(name="gaussian"),
            net=dict(
                name="ddpmpp", width=128, multipliers=(2, 2, 2), blocks=4, attention=(16,), dropout=0.13,
                frequencies=dict(scale=1.0, offset=0.0, cosine_first=False, last=True), dtype="bfloat16",
            ),
            label_dropout=0.1,
            optimizer=dict(name="adam", learning_rate=1e-3, warmup=19_531, decay="constant", clip=0.0),
            ema=dict(name="warmed", decay=0.99929),  # a half-life of 500,000 images
            steps_per_call=1,
            every=dict(log=100, evaluate=10_000, checkpoint=5_000, preview=10_000, snapshot=0),
            keep=dict(last=2, best=1),
            loader=dict(workers=4, threads=2, prefetch=8),
            mesh=dict(fsdp=1, tensor=1),
            memory=dict(accumulate=1, remat="none", offload=False),
            watch=dict(spike=0.0),
            sampler=dict(solver="heun", steps=18, num=100),
        )
    )  # fmt: skip

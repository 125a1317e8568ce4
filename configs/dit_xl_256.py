"""ImageNet, 256 x 256, by class: DiT-XL/2 on latents of 32 x 32 x 4, 675 million parameters.

The network and the optimizer are those of Peebles & Xie 2023; straight paths and their velocity those of "SiT-XL/2"
(Ma et al. 2024).

    python train.py --config configs/dit_xl_256.py --workdir runs/dit_xl_256

Data: latents of an autoencoder of the reader's, made once: `python -m diffjax.cache --encode` writes data/latents.
Hardware: the papers used TPU v3 pods, 7 million steps of 256 images; on a pod set mesh.fsdp.
Measured: not run here.  Ma et al. report FID 8.3 without guidance and 2.06 with.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config().to_dict() | dict(
        steps=7_000_000,
        batch_size=256,
        data=dict(
            name="records", path="data/latents", split="train", heldout="validation", flip=False, skip=False,
            range=(-1.0, 1.0),
        ),
        schedule=dict(name="flow"),
        parameterization=dict(name="velocity"),
        weight=dict(name="velocity"),
        times=dict(name="uniform"),
        net=dict(name="dit", size="XL", patch=2, dtype="bfloat16"),
        optimizer=dict(name="adam", learning_rate=1e-4, warmup=0, decay="constant", clip=0.0),
        ema=dict(name="warmed", decay=0.9999),
        sampler=dict(solver="heun", steps=50, num=64),
    )  # fmt: skip
    return ConfigDict(config)

"""ImageNet, 64 x 64, by class: ADM, 296 million parameters.

Network and training are those of EDM (Karras et al. 2022, table 7, "ImageNet").

    python train.py --config configs/imagenet64.py --workdir runs/imagenet64

Data: tensorflow-datasets' imagenet_resized/64x64, prepared once as array_record (diffjax/data/tfds.py says how).
Hardware: the paper used 32 A100 for about two weeks (2.5 billion images).
Measured: not run here.  The paper reports FID 1.36.
"""

from ml_collections import ConfigDict

from configs import cifar10


def get_config() -> ConfigDict:
    config = cifar10.get_config()
    config.update(
        steps=610_352,  # 2.5 billion images
        batch_size=4096,
        data=dict(dataset="imagenet_resized/64x64", heldout="validation", flip=False),
        net=dict(
            name="adm", width=192, multipliers=(1, 2, 3, 4), blocks=3, attention=(32, 16, 8), dropout=0.1,
            frequencies=dict(cosine_first=True, last=False),
        ),
        optimizer=dict(learning_rate=1e-4, warmup=2_441),
        ema=dict(decay=0.99994),  # a half-life of 50 million images
        loader=dict(workers=16),
        sampler=dict(steps=40),
    )  # fmt: skip
    return config

"""Handwritten digits, 8 x 8, by class: the demo.

    python train.py --config configs/digits.py --workdir runs/digits

Data: the 1,797 scans that scikit-learn ships, 300 of them held out.
Hardware: 2 CPU cores; 2.5 minutes, compilation included.
Measured (bench/README.md): a judge that has seen real digits only reads 99.6 % of 1,000 samples as their label.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            steps=2400,
            batch_size=64,
            # what to learn
            data=dict(name="digits", split="train", heldout="test", flip=False, skip=False, range=(-1.0, 1.0)),
            # the mathematics
            schedule=dict(name="cosine"),
            parameterization=dict(name="v"),
            weight=dict(name="snr"),
            times=dict(name="stratified"),
            process=dict(name="gaussian"),
            # the network
            net=dict(
                name="unet", width=24, multipliers=(1, 2), blocks=1, attention=(4,), head_width=32, dtype="float32"
            ),
            label_dropout=0.1,
            # the training
            optimizer=dict(name="adam", learning_rate=2e-3, warmup=200, decay="cosine", clip=1.0),
            ema=dict(name="warmed", decay=0.995),
            # everything below may change between a run and its continuation
            steps_per_call=1,
            every=dict(log=50, evaluate=800, checkpoint=400, preview=800, snapshot=0),
            keep=dict(last=2, best=1),
            loader=dict(workers=0, threads=2, prefetch=8),
            mesh=dict(fsdp=1, tensor=1),
            memory=dict(accumulate=1, remat="none", offload=False),
            watch=dict(spike=0.0),
            sampler=dict(solver="ancestral", steps=50, num=100),
        )
    )

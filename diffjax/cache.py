"""Write the data of a config into ArrayRecord files once, so that training reads them fast, at random, from disk.

    python -m diffjax.cache --config configs/cifar10.py --out data/cifar10
    python -m diffjax.cache --config configs/imagenet64.py --out data/latents --encode mypackage.vae:encode

Then, in the config, data.name="records" and data.path="data/cifar10".  An encoder is a function of float32 images
[b, *S] in data.range that returns latents [b, *Z], which should be of about unit variance.
"""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

from diffjax.data import DATASETS, store
from diffjax.errors import InputError, exit_on_input_error
from diffjax.experiment import DATA_OPTIONS, pick, read_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config file whose data is written")
    parser.add_argument("--out", required=True, type=Path, help="folder; it gets one folder for each split")
    parser.add_argument("--encode", help="package.module:function that makes latents of images")
    parser.add_argument("--batch", type=int, default=256, help="examples at a time (default: 256)")
    args = parser.parse_args()
    with exit_on_input_error():
        config = read_config(args.config)
        if "data" not in config:
            raise InputError(f"the config {args.config} has no data; add it as in configs/digits.py")
        data = config["data"]
        encode = _function(args.encode) if args.encode else None
        spec = {key: value for key, value in data.items() if key not in DATA_OPTIONS}
        for split in filter(None, (data["split"], data["heldout"])):
            source, ends = pick(DATASETS, "data", spec, split), tuple(data["range"])
            store(source, args.out / split, encode=encode, value_range=ends, batch=args.batch, skip=data["skip"])
            print(args.out / split)


def _function(name: str) -> Callable:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"cannot load the encoder '{name}': {error}; give it as package.module:function") from error


if __name__ == "__main__":
    main()

"""Import the weights of another library as a run, or export a run's.

    python -m diffjax.convert model/ --layout diffusers-unet --config configs/cifar10.py --workdir runs/imported
    python -m diffjax.convert --workdir runs/imported --layout diffusers-unet --to weights.safetensors

SOURCE is a file or a folder: .safetensors (with an index.json, if there are several), .pt .pth .bin .ckpt .pkl,
.msgpack, .npz.  No other library is needed, and nothing in a file is run.  docs/importing.md has a command for each
layout.  With --activations a recording of the original is compared, module by module.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path


def shape(text: str) -> tuple[int, ...]:
    """'32,32,3' -> (32, 32, 3)"""
    return tuple(int(part) for part in text.split(","))


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffjax.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", help="the file or folder of weights; none, to export or to compare")
    parser.add_argument("--layout", required=True, help="whose weights: diffusers-unet, dit, edm, ...")
    parser.add_argument("--workdir", required=True, help="folder of the run, new for an import")
    parser.add_argument("--config", help="config of the run; what the weights say of their net goes first")
    parser.add_argument("--shape", type=shape, help="of the data, as 32,32,3 (default: the weights', or the config's)")
    parser.add_argument("--classes", type=int, help="of the data (default: the weights', or the config's)")
    parser.add_argument("--at", help="where in the file the weights are, as 'model' (default: the average, if any)")
    parser.add_argument("--to", help="export the run's weights into this .safetensors")
    parser.add_argument("--dtype", default="float32", help="of an export: float32, bfloat16, float16")
    parser.add_argument("--raw", action="store_true", help="export the optimizer's parameters, not their average")
    parser.add_argument("--step", type=int, help="training step of the export (default: the newest)")
    parser.add_argument("--activations", help="an .npz of what the original answered, to compare with")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    from diffjax.errors import InputError, exit_on_input_error  # here, so that --help answers at once

    with exit_on_input_error():
        from diffjax.interchange.layouts import layout

        layout(args.layout)
        if not (args.source or args.to or args.activations):
            raise InputError("give a SOURCE to import, --to to export, or --activations to compare with")
        if args.source and not args.config:
            raise InputError("an import needs --config: the schedule and what the network predicts are not in weights")
        from diffjax import certificate, transfer
        from diffjax.experiment import read_config
        from diffjax.model import load

        if args.source:
            transfer.import_weights(
                args.source, args.layout, read_config(args.config), args.workdir, shape=args.shape,
                classes=args.classes, at=args.at,
            )  # fmt: skip
        if args.to:
            transfer.export_weights(args.workdir, args.layout, args.to, raw=args.raw, step=args.step, dtype=args.dtype)
        if args.activations:
            model = load(args.workdir, raw=args.raw, step=args.step)
            pairs = transfer.pairs_of(layout(args.layout), args.layout, transfer.target_of(model.experiment))
            print(certificate.certify(model.experiment, model.params, Path(args.activations), pairs))


if __name__ == "__main__":
    main()

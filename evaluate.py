"""Evaluate what was trained.

    python evaluate.py ema --workdir runs/digits --stds 0.02,0.05,0.1,0.15,0.2

scores averages of other lengths than those that were tracked on the held-out data (train with ema "power" and
every.snapshot > 0); writes a table and a picture into the folder evaluation of the workdir.
"""

import argparse


def lengths(text: str) -> list[float]:
    """'0.05,0.1' -> [0.05, 0.1]"""
    return [float(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    ema = commands.add_parser("ema", help="score averages of any length, rebuilt from snapshots")
    ema.add_argument("--workdir", required=True, help="folder of a run, as given to train.py")
    ema.add_argument(
        "--stds", type=lengths, default=[0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25],
        help="relative standard deviations, separated by commas (default: ten from 0.01 to 0.25)",
    )  # fmt: skip
    ema.add_argument("--step", type=int, help="training step at which averages end (default: the last snapshot's)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    import diffjax  # here, so that --help answers at once

    with diffjax.exit_on_input_error():
        diffjax.cache_compilations()
        path = diffjax.sweep(args.workdir, args.stds, step=args.step)
    print(path)


if __name__ == "__main__":
    main()

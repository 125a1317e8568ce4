"""Evaluate what was trained: numbers with a passport and pictures, in the folder evaluation of the workdir.

python evaluate.py samples --workdir runs/digits              quality of samples beside the training data
python evaluate.py samples --samples a --reference b.npz      the same of stored sets
python evaluate.py copies --workdir runs/digits               samples beside their nearest training examples
python evaluate.py likelihood --workdir runs/digits           bits a dimension of held-out data
python evaluate.py levels --workdir runs/digits               held-out loss at every noise level
python evaluate.py ema --workdir runs/digits                  averages of other lengths, from snapshots
python evaluate.py compare a.json b.json --vary sampler       two files of numbers
"""

import argparse


def many(kind=str):
    """'0.05,0.1' -> [0.05, 0.1]"""
    return lambda text: [kind(part) for part in text.split(",")]


RUN = {"workdir": "folder of a run, as given to train.py", "step": (int, "training step (default: the newest)")}
PARAMETERS = {"ema": (float, "length of an average to rebuild from snapshots"), "raw": "the optimizer's parameters"}
SAMPLER = {
    "num": (int, "samples"), "labels": (many(int), "classes in turn (default: as frequent as in the training data)"),
    "solver": "as in sample.py (default: the config's)", "steps": (int, "of the solver"), "grid": "their spacing",
    "eta": (float, "noise of the solver"), "guidance": (float, "as in sample.py"), "seed": (int, "of the noise"),
    "batch": (int, "samples made at a time"), "features": "classifier, inception, dinov2, clip, pixels",
    "weights": "file of a published network", **PARAMETERS,
}  # fmt: skip
STORED = {
    "samples": "stored samples, not a run's",
    "reference": "what they are compared with",
    "out": "folder to write to",
}
COMMANDS = {  # name -> (function of diffjax, its options)
    "samples": ("score", RUN | SAMPLER | STORED | {"metrics": (many(), "of docs/evaluating.md, separated by commas")}),
    "copies": ("find_copies", RUN | SAMPLER),
    "likelihood": ("likelihood", RUN | PARAMETERS | {
        "num": (int, "examples (default: 256)"), "steps": (int, "of the ODE (default: 20)"), "seed": (int, "of noise"),
        "probes": (int, "for the divergence (default: 2)"), "draws": (int, "for the bound (default: 32)"),
    }),
    "levels": ("noise_levels", RUN | PARAMETERS | {"points": (int, "noise levels (default: 32)")}),
    "ema": ("sweep", RUN | {"stds": (many(float), "relative standard deviations (default: ten from 0.01 to 0.25)")}),
    "compare": ("compare", {"vary": (many(), "parts of the passports that are meant to differ, separated by commas")}),
}  # fmt: skip


def arguments() -> tuple[str, list[str], dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, options) in COMMANDS.items():
        command = commands.add_parser(name, argument_default=argparse.SUPPRESS)
        for option, told in options.items():
            kind, text = told if isinstance(told, tuple) else (str, told)
            how = {"action": "store_true"} if option == "raw" else {"type": kind, "metavar": option[0].upper()}
            command.add_argument(f"--{option}", help=text, required=option == "workdir" and name != "samples", **how)
        if name == "compare":
            command.add_argument("files", nargs=2, help="scores.json of two evaluations")
    given = vars(parser.parse_args())
    return given.pop("command"), given.pop("files", []), given


def main() -> None:
    name, files, options = arguments()
    import diffjax  # here, so that --help answers at once

    with diffjax.exit_on_input_error():
        diffjax.cache_compilations()
        print(getattr(diffjax, COMMANDS[name][0])(*files, **options))


if __name__ == "__main__":
    main()

"""Evaluate what was trained: numbers with a passport and pictures, in the folder evaluation of the workdir.

python evaluate.py samples --workdir runs/digits            quality of samples beside the training data
python evaluate.py samples --samples a --reference b.npz    the same of stored sets
python evaluate.py copies --workdir runs/digits             samples beside their nearest training examples
python evaluate.py likelihood --workdir runs/digits         bits a dimension of held-out data
python evaluate.py levels --workdir runs/digits             held-out loss at every noise level
python evaluate.py ema --workdir runs/digits                averages of other lengths, from snapshots
python evaluate.py plan --workdir runs/digits --budget 10   solver and times for so many network calls
python evaluate.py compare a.json b.json --vary sampler     two files of numbers
"""

import argparse


def many(kind):
    return lambda text: [kind(part) for part in text.split(",")]  # '0.05,0.1' -> [0.05, 0.1]


OPTIONS = {
    "workdir": (str, "folder of a run, as given to train.py"), "step": (int, "training step (default: the newest)"),
    "ema": (float, "length of an average to rebuild from snapshots"), "num": (int, "how many samples or examples"),
    "labels": (many(int), "classes in turn (default: as frequent as in the training data; of a plan: all)"),
    "solver": (str, "as in sample.py, as steps, grid, eta, guidance"), "steps": (int, "of the solver, or of the ODE"),
    "grid": (str, "spacing of the steps"), "eta": (float, "noise"), "guidance": (float, "classifier-free guidance"),
    "plan": (str, "file of evaluate.py plan, which decides the sampler"), "seed": (int, "of the noise (default: 0)"),
    "batch": (int, "how many at a time"), "features": (str, "classifier, inception, dinov2, clip or pixels"),
    "weights": (str, "file of a published network"), "metrics": (many(str), "frechet,kid,... (docs/evaluating.md)"),
    "samples": (str, "stored samples, not a run's"), "reference": (str, "what samples are compared with"),
    "out": (str, "folder to write to"), "probes": (int, "of the divergence"), "draws": (int, "of the bound"),
    "points": (int, "noise levels (default: 32)"), "stds": (many(float), "relative lengths (default: ten to 0.25)"),
    "budget": (int, "network calls a sample"), "milliseconds": (float, "for --num samples here, in place of calls"),
    "quality": (str, "rms, sliced_wasserstein or energy"), "vary": (many(str), "parts of passports that may differ"),
}  # fmt: skip
DRAWN = "workdir step ema raw num labels solver steps grid eta guidance plan seed batch features weights"
COMMANDS = {  # name -> (function of diffjax, its options)
    "samples": ("score", DRAWN + " metrics samples reference out"), "copies": ("find_copies", DRAWN),
    "likelihood": ("likelihood", "workdir step ema raw num steps probes draws seed batch"),
    "levels": ("noise_levels", "workdir step ema raw points"), "ema": ("sweep", "workdir step stds"),
    "plan": ("make_plan", "workdir step budget milliseconds guidance labels quality num seed"),
    "compare": ("compare", "vary"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, options) in COMMANDS.items():
        command = commands.add_parser(name, argument_default=argparse.SUPPRESS, allow_abbrev=False)
        for option in options.split():
            if option == "raw":
                command.add_argument("--raw", action="store_true", help="the optimizer's parameters, not their average")
                continue
            kind, told = OPTIONS[option]
            required = option == "workdir" and name != "samples"
            command.add_argument(f"--{option}", type=kind, help=told, metavar=option[0].upper(), required=required)
        if name == "compare":
            command.add_argument("files", nargs=2, help="two files of numbers, as scores.json")
    given = vars(parser.parse_args())
    name, files = given.pop("command"), given.pop("files", [])
    import diffjax  # here, so that --help answers at once

    with diffjax.exit_on_input_error():
        diffjax.cache_compilations()
        given = diffjax.obeying(**given) if "plan" in given else given
        print(getattr(diffjax, COMMANDS[name][0])(*files, **given))


if __name__ == "__main__":
    main()

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

import diffjax

many = lambda kind: lambda text: [kind(part) for part in text.split(",")]  # noqa: E731  "0.05,0.1" -> [0.05, 0.1]
OPTIONS = {
    "workdir": (str, "folder of a run"), "step": (int, "training step (default: last)"), "draws": (int, "of the bound"),
    "raw": (bool, "the optimizer's parameters, not their average"), "num": (int, "of samples or examples"),
    "ema": (float, "relative length of an average"), "solver": (str, "as in sample.py"), "out": (str, "folder"),
    "labels": (many(int), "classes in turn (default: as in the data)"), "steps": (int, "of the solver, or of the ODE"),
    "grid": (str, "spacing of the steps"), "guidance": (float, "classifier-free"), "probes": (int, "of the divergence"),
    "plan": (str, "file of evaluate.py plan: it decides the sampler"), "seed": (int, "of the noise (default: 0)"),
    "batch": (int, "how many at a time"), "features": (str, "classifier, inception, dinov2, clip or pixels"),
    "weights": (str, "file of a published network"), "metrics": (many(str), "frechet,kid,... (docs/evaluating.md)"),
    "samples": (str, "stored samples, not a run's"), "reference": (str, "what samples are compared with"),
    "points": (int, "noise levels (default: 32)"), "stds": (many(float), "relative lengths (default: ten to 0.25)"),
    "budget": (int, "network calls a sample"), "milliseconds": (float, "for --num samples"), "eta": (float, "noise"),
    "quality": (str, "rms, sliced_wasserstein or energy"), "vary": (many(str), "parts of passports that may differ"),
}  # fmt: skip
DRAWN = "workdir step ema raw num labels solver steps grid eta guidance plan seed batch features weights"
COMMANDS = {  # name -> function of diffjax, and its options
    "samples": f"score {DRAWN} metrics samples reference out", "copies": f"find_copies {DRAWN}",
    "likelihood": "likelihood workdir step ema raw num steps probes draws seed batch",
    "levels": "noise_levels workdir step ema raw points", "ema": "sweep workdir step stds",
    "plan": "make_plan workdir step budget milliseconds guidance labels quality num seed", "compare": "compare vary",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, said in COMMANDS.items():
        command = commands.add_parser(name, argument_default=argparse.SUPPRESS, allow_abbrev=False)
        for option in said.split()[1:]:
            kind, told = OPTIONS[option]
            how: dict = {"action": "store_true"} if kind is bool else {"type": kind, "metavar": option[0].upper()}
            command.add_argument(f"--{option}", help=told, required=option == "workdir" and name != "samples", **how)
    commands.choices["compare"].add_argument("files", nargs=2, help="two files of numbers, as scores.json")
    given = vars(parser.parse_args())
    function, files = COMMANDS[given.pop("command")].split()[0], given.pop("files", [])
    with diffjax.exit_on_input_error():
        diffjax.prepare()
        given = diffjax.obeying(**given) if "plan" in given else given
        print(getattr(diffjax, function)(*files, **given))


if __name__ == "__main__":
    main()

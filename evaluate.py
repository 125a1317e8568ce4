"""Evaluate what was trained.

    python evaluate.py ema --workdir runs/digits --stds 0.02,0.05,0.1,0.15,0.2
    python evaluate.py plan --workdir runs/digits --budget 10

ema scores averages of other lengths than those that were tracked on the held-out data (train with ema "power" and
every.snapshot > 0).  plan finds the solver and the times that make the most of so many network calls, for sample.py
--plan.  Both write tables and pictures into the folder evaluation of the workdir.
"""

import argparse

COMMANDS = {"ema": "sweep", "plan": "make_plan"}  # of diffjax


def numbers(kind):
    """'0.05,0.1' -> [0.05, 0.1]"""
    return lambda text: [kind(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    ema = commands.add_parser("ema", help="score averages of any length, rebuilt from snapshots")
    ema.add_argument(
        "--stds", type=numbers(float), default=[0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25],
        help="relative standard deviations, separated by commas (default: ten from 0.01 to 0.25)",
    )  # fmt: skip
    plan = commands.add_parser("plan", help="the best solver and times for a budget")
    budget = plan.add_mutually_exclusive_group(required=True)
    budget.add_argument("--budget", type=int, help="network calls for a sample")
    budget.add_argument("--milliseconds", type=float, help="time for --num samples on this machine, in place of calls")
    plan.add_argument("--guidance", type=float, help="as in sample.py (default: none)")
    plan.add_argument("--labels", type=numbers(int), help="classes to measure on (default: all)")
    plan.add_argument("--quality", default="rms", help="rms, sliced_wasserstein, energy (default: %(default)s)")
    plan.add_argument("--num", type=int, default=64, help="trajectories to measure on (default: %(default)s)")
    plan.add_argument("--seed", type=int, default=0, help="of their noise (default: %(default)s)")
    for command in (ema, plan):
        command.add_argument("--workdir", required=True, help="folder of a run, as given to train.py")
        command.add_argument("--step", type=int, help="training step (default: the newest)")
    return parser.parse_args()


def main() -> None:
    args = vars(arguments())
    import diffjax  # here, so that --help answers at once

    with diffjax.exit_on_input_error():
        diffjax.cache_compilations()
        path = getattr(diffjax, COMMANDS[args.pop("command")])(**args)
    print(path)


if __name__ == "__main__":
    main()

"""Sample from a trained model.

    python sample.py --workdir runs/digits --num 100 --labels 0,1,2 --guidance 2 --out samples

writes a picture, samples.npz and the exact settings into the folder --out.
"""

import argparse

import diffjax


def labels(text: str) -> list[int]:
    """'0,1,2' -> [0, 1, 2]"""
    return [int(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="folder of a run, as given to train.py")
    parser.add_argument("--num", type=int, default=100, help="number of samples (default: 100)")
    parser.add_argument(
        "--labels", type=labels, help="classes, separated by commas; they cycle over the samples (default: none)"
    )
    parser.add_argument(
        "--solver", help="ddim, heun, dpmpp_2m, unipc, ... (default: the config's; all: docs/choosing_a_sampler.md)"
    )
    parser.add_argument("--steps", type=int, help="steps of the solver (default: the config's)")
    parser.add_argument("--grid", help="spacing: uniform, log_snr, rho, quadratic, trailing (default: uniform)")
    parser.add_argument("--eta", type=float, help="noise, from the ODE (0) to the SDE (1) (default: the solver's)")
    parser.add_argument("--churn", type=float, help="noise that heun adds before its steps, 0 and up (default: 0)")
    parser.add_argument("--start", type=float, help="time at which the grid starts, at most 1 (default: 1)")
    parser.add_argument(
        "--guidance", type=float, help="classifier-free guidance; 1 changes nothing, 2 is strong (default: none)"
    )
    parser.add_argument("--plan", help="file of evaluate.py plan, which decides solver, times, eta and checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="sample i depends on the seed and i alone (default: 0)")
    parser.add_argument("--batch", type=int, default=500, help="samples made at a time (default: 500)")
    parser.add_argument("--step", type=int, help="training step of the checkpoint (default: the newest)")
    parser.add_argument("--ema", type=float, help="relative length of an average to rebuild from snapshots, as 0.08")
    parser.add_argument("--raw", action="store_true", help="use the optimizer's parameters, not their average")
    parser.add_argument("--singles", action="store_true", help="write each sample as a PNG of its own, too")
    parser.add_argument("--out", default="samples", help="folder to write into (default: samples)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    with diffjax.exit_on_input_error():
        diffjax.prepare()
        path = diffjax.sample_to_folder(**diffjax.obeying(**vars(args)))
    print(path)


if __name__ == "__main__":
    main()

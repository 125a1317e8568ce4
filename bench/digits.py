"""How good are the demo's samples?  A judge that has seen real digits only.

label      the share of class-conditional samples that an RBF support vector machine, trained on the training split,
           takes for what they were asked to be; beside it the judge's own accuracy on held-out real digits
copies     mean distance of a sample to its nearest training digit / the same of held-out real digits; near 0 are copies
coverage   the share of held-out real digits that have a sample within the radius of their 5th nearest training digit
           (Naeem et al. 2020)
"""

import argparse
import time

import jax
import numpy as np
from sklearn.svm import SVC

import diffjax
from diffjax.data import digits
from diffjax.data.loader import scaled


def nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances [len(a), len(b)]."""
    return np.sqrt(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0))


def real(split: str) -> tuple[np.ndarray, np.ndarray]:
    source = digits(split)
    batch = source.read(np.arange(source.size))
    return scaled(batch["x"], source, (-1.0, 1.0)).reshape(source.size, -1).astype(np.float64), batch["label"]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench digits", description=__doc__)
    parser.add_argument("--workdir", default="runs/digits")
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--solver")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    args = parser.parse_args(argv)
    with diffjax.exit_on_input_error():
        diffjax.prepare()
        model = diffjax.load(args.workdir)
        labels, start = np.arange(args.num) % 10, time.perf_counter()
        x = model.sample(
            jax.random.key(args.seed), args.num, labels=np.arange(10), guidance=args.guidance,
            solver=args.solver, steps=args.steps,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    samples = np.clip(x, -1, 1).reshape(args.num, -1).astype(np.float64)
    (train, train_label), (test, test_label) = real("train"), real("test")
    judge = SVC(gamma=0.064, C=10).fit(train, train_label)
    among_real = nearest(test, train)
    radius = np.sort(among_real, axis=1)[:, 4]
    print(
        f"{args.num} samples of {args.workdir}, step {model.step}, seed {args.seed}, {seconds:.1f} s with compilation"
    )
    accuracy, own = np.mean(judge.predict(samples) == labels), judge.score(test, test_label)
    print(f"label     {accuracy:.4f}   (judge on held-out real: {own:.4f})")
    print(f"copies    {nearest(samples, train).min(1).mean() / among_real.min(1).mean():.4f}")
    print(f"coverage  {np.mean(nearest(test, samples).min(1) <= radius):.4f}")

"""Closeness to the law at few network calls, ours beside diffusers and k-diffusion, all in double precision.

Everybody asks one exact denoiser of the testbed's mixture, which counts, and starts from the exact law at the first
noise level of his own, alpha x_0 + sigma z, with the same x_0 and z.  Two distances:

    SW     sliced Wasserstein to as many draws of the law: never below what chance leaves between two sets of draws
    RMS    to the ends of the exact flow from the same starts (2000 steps of ours): has no such floor, and bounds the
           Wasserstein distance to the law; of rows that draw noise it says nothing, and is large

Every rule runs on every grid that it knows, and the best run again on fresh seeds: many rows are no advantage.
"""

import argparse
import itertools
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax.diffusion import grids
from diffjax.diffusion.sampling import sample
from diffjax.diffusion.schedules import SCHEDULES, time_of_log_snr
from diffjax.diffusion.solvers import SOLVERS
from diffjax.evaluation.distances import floor, sliced_wasserstein
from diffjax.testbed import WORLDS, Setting

BUDGETS, FRESH = (5, 8, 10, 20), 8
LOWEST = 0.002, 0.01, 0.03, 0.1  # sigma / alpha of the last level above data, where that is the user's choice
FAMILIES = "linear", "scaled_linear", "cosine", "edm", "ve", "flow"
SAME = "euler", "euler_ancestral", "dpm_1"  # names of ddim
world = cache(WORLDS["mixture"])


def each(**choices):
    """Every combination of options."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


OPTIONS = {  # beside a row's defaults
    "ddim": each(eta=[0.5, 1.0]), "deis": each(order=[1, 2]), "dpmpp_2m_sde": each(eta=[0.5]),
    "dpmpp_3m_sde": each(eta=[0.5]), "ipndm": each(order=[2, 3]), "lms": each(order=[2, 3]),
    "annealed_langevin": each(per_level=[1]), "restart": each(repeats=[1], steps=[1]),
    "rk45": each(tolerance=[1.0]), "unipc": each(order=[1, 2]),
}  # fmt: skip


class Row(NamedTuple):
    """A rule on a grid, within a budget."""

    side: str
    rule: str
    grid: str
    budget: int
    level: tuple[float, float]  # (alpha, sigma) of its first call
    run: Callable  # (x, seed) -> (samples, calls made)


class Judge:
    """The starts of a seed, and the distances of their ends to the law."""

    def __init__(self, seed, n):
        keys = jax.random.split(jax.random.key(seed), 3)
        self.seed, self.x0, self.z = seed, world().draw(keys[0], n), jax.random.normal(keys[1], (n, 2))
        u = jax.random.normal(jax.random.key(0), (2, 64))  # as sliced_wasserstein does, which sorts slowly
        self.u = np.asarray(u / jnp.linalg.norm(u, axis=0, keepdims=True)).T
        truth = world().draw(keys[2], n)
        self.truth = np.sort(self.u @ np.asarray(truth).T)
        assert np.isclose(self.sw(np.asarray(self.x0)), sliced_wasserstein(self.x0, truth))
        self.flow = cache(self._flow)

    def _flow(self, level, n=2048):
        """The ends of the first starts, along the circle alpha^2 + sigma^2 = 1: every schedule's, up to a scale."""
        ratio = level[1] / max(level[0], 1e-300)
        angles = np.arctan([ratio, *np.geomspace(min(ratio, 1e4), 1e-5, 2000)[1:], 0])
        return np.asarray(follow(2 / np.pi * angles, self.start(level)[:n] / np.hypot(*level)))

    def start(self, level):
        return np.asarray(level[0] * self.x0 + level[1] * self.z)

    def sw(self, x):
        return float(np.mean(np.sqrt(np.mean((np.sort(self.u @ x.T) - self.truth) ** 2, axis=1))))

    def __call__(self, row):
        """(SW, RMS); infinite for a row that breaks down, or its budget."""
        try:
            x, calls = row.run(self.start(row.level), self.seed)
        except Exception:  # a peer's own: options that it takes, and cannot run with
            return np.inf, np.inf
        if calls > row.budget or not np.isfinite(x).all():
            return np.inf, np.inf
        ends = self.flow(row.level)
        return self.sw(x), float(np.sqrt(np.mean((x[: len(ends)] - ends) ** 2)))


@jax.jit
def follow(ts, x):
    process = Setting("", "cosine", "x0", SOLVERS["dpmpp_3m"]).process
    return sample(jax.random.key(0), world().denoise(process.schedule), SOLVERS["dpmpp_3m"](process), ts=ts, x=x)


@cache
def grids_of(family):
    """Grids of 1, 2, 3, ... steps, padded to one length, by name."""
    schedule, most = SCHEDULES[family](), max(BUDGETS)
    least = time_of_log_snr(schedule, -2 * jnp.log(jnp.asarray(LOWEST)))

    def stack(name, **options):
        return jnp.stack([grids.pad(grids.GRIDS[name](schedule, n, **options), most + 1) for n in range(1, most + 1)])

    even = {name: jax.jit(jax.vmap(lambda t, name=name: stack(name, least=t)))(least) for name in ("log_snr", "rho")}
    made = {name: stack(name) for name in ("uniform", "quadratic", "trailing", "leading")}
    return made | {f"{name} to {low}": ts for name in even for low, ts in zip(LOWEST, even[name], strict=True)}


def ours(rule, options, family):
    """The rows of a rule on a schedule; none where it is refused."""
    try:
        process = Setting(rule, family, "x0", SOLVERS[rule]).process
        solver, exact, made = SOLVERS[rule](process, **options), world().denoise(process.schedule), []
    except ValueError:
        return

    def counted(xt, t, cond=None):
        jax.debug.callback(lambda: made.append(1))
        return exact(xt, t)

    def run(x, seed, ts):
        made.clear()
        x = np.asarray(walk(jax.random.key(seed), ts, x))
        jax.effects_barrier()
        return x, len(made)

    walk = jax.jit(lambda key, ts, x: sample(key, counted, solver, ts=ts, x=x, padded=True))
    plan = jax.jit(jax.vmap(lambda ts: jnp.sum(solver.plan(ts).moves)))
    title = " ".join([rule, *(f"{k}={v}" for k, v in options.items())])
    for (grid, stack), budget in itertools.product(grids_of(family).items(), BUDGETS):
        for ts in stack[np.flatnonzero(np.asarray(plan(stack)) <= budget)[-1:]]:
            level = tuple(float(part) for part in process.schedule(ts[0]))
            yield Row("ours", title, f"{family}, {grid}", budget, level, partial(run, ts=ts))


def report(scores, fresh, chance):
    """The best of every side at every budget, and all rules at their best, in Markdown."""
    bests, tables = [], []
    for budget in BUDGETS:
        here = {row: score for row, score in scores.items() if row.budget == budget and score[0] < np.inf}
        sides = list(dict.fromkeys(row.side for row in here))
        by_sw, by_rms = (lambda row: np.mean(fresh.get(row, np.inf))), (lambda row, here=here: here[row][1])
        bests += [
            f"\n## {budget} calls\n\n| by | side | SW, fresh seeds | RMS | rule | grid |\n|---|---|---|---|---|---|"
        ]
        first = {}
        for (by, rank), side in itertools.product((("SW", by_sw), ("RMS", by_rms)), sides):
            for row in sorted((r for r in here if r.side == side and r in fresh), key=rank)[
                : 5 if side == "ours" else 3
            ]:
                first.setdefault((by, side), row)
                error = np.std(fresh[row]) / np.sqrt(FRESH - 1)
                sw = f"{np.mean(fresh[row]):.4f} ± {error:.4f}"
                bests += [f"| {by} | {side} | {sw} | {here[row][1]:.4f} | {row.rule} | {row.grid} |"]
        for side in sides[1:]:
            a, b = fresh[first["SW", "ours"]], fresh[first["SW", side]]
            sw, rms = np.log(b / a), here[first["RMS", side]][1] / here[first["RMS", "ours"]][1]
            error = np.exp(sw.mean()) * sw.std() / np.sqrt(FRESH - 1)
            bests += [f"\nbest of {side} / best of ours: SW {np.exp(sw.mean()):.3f} ± {error:.3f}, RMS {rms:.3f}"]
        tables += [
            f"\n## Every rule at {budget} calls\n\n"
            "| side | rule | SW | on the grid | RMS | on the grid |\n|---|---|---|---|---|---|"
        ]
        best = {}
        for row, score in here.items():
            pair = best.setdefault(row[:2], [(np.inf, ""), (np.inf, "")])
            best[row[:2]] = [min(old, (value, row.grid)) for old, value in zip(pair, score, strict=True)]
        for (side, rule), ((sw, one), (rms, two)) in sorted(best.items(), key=lambda item: item[1]):
            tables += [f"| {side} | {rule} | {sw:.4f} | {one} | {rms:.4f} | {two} |"]
    return "\n".join([f"Chance alone: SW {chance[0]:.4f} to {chance[1]:.4f} (5 % to 95 %).", *bests]), "\n".join(tables)


def main(argv):
    parser = argparse.ArgumentParser(prog="python -m bench nfe", description=__doc__)
    parser.add_argument("--num", type=int, default=8192, help="samples (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a Markdown file for all of it")
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    judge = Judge(0, args.num)
    options = [(rule, o) for rule in SOLVERS if rule not in SAME for o in [{}, *OPTIONS.get(rule, [])]]
    jobs = [partial(ours, *option, family) for option, family in itertools.product(options, FAMILIES)]
    many = ThreadPool(2).imap_unordered(lambda job: [(row, judge(row)) for row in job()], jobs)
    scores = dict(itertools.chain.from_iterable(tqdm(many, total=len(jobs), desc="ours")))
    if all(map(find_spec, ("torch", "diffusers", "k_diffusion"))):
        from bench import nfe_peers

        for job in tqdm(nfe_peers.jobs(), desc="theirs"):
            scores |= {row: judge(row) for row in job()}
    else:
        print("ours alone; for the others run `make parity`, then .venv-peers/bin/python -m bench nfe")
    groups = {}
    for row in scores:
        groups.setdefault((row.side, row.budget), []).append(row)
    judges = [Judge(seed, args.num) for seed in range(1, FRESH + 1)]
    best = [sorted(g, key=lambda row: scores[row][k])[:6] for g in groups.values() for k in (0, 1)]
    fresh = {
        r: np.asarray([j(r)[0] for j in judges]) for r in tqdm(dict.fromkeys(itertools.chain(*best)), desc="again")
    }
    chance = floor(jax.random.key(99), lambda key: world().draw(key, args.num), sliced_wasserstein)
    short, full = report(scores, fresh, chance)
    print(short)
    if args.out:
        args.out.write_text(f"# Closeness to the law at few network calls\n\n{short}\n{full}\n")

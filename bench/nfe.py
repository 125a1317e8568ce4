"""Closeness to the law at few network calls, ours beside diffusers and k-diffusion, all in double precision.

Everybody asks one exact denoiser of the testbed's mixture, which counts, and starts from the exact law at the first
noise level of his own, alpha x_0 + sigma z, with the same x_0 and z; who starts below a noise of ten times the signal
is left out, for the start would be half of the work.  SW is the sliced Wasserstein distance to as many draws of the
law, never below what chance leaves between two sets of draws.  RMS is the distance to the ends of the exact flow (2000
steps of ours) from the same starts: it has no such floor, and bounds the Wasserstein distance to the law; of rows that
draw noise it says nothing.  The best of all rules and grids run again on fresh seeds, with eight times the samples.
"""

import argparse
from functools import cache, partial
from importlib.util import find_spec
from itertools import chain, product
from multiprocessing.pool import ThreadPool
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from bench.nfe_rows import BUDGETS, LOWEST, Row, named, world
from diffjax.diffusion import grids
from diffjax.diffusion.sampling import sample
from diffjax.diffusion.schedules import SCHEDULES, time_of_log_snr
from diffjax.diffusion.solvers import SOLVERS
from diffjax.evaluation.distances import floor, sliced_wasserstein
from diffjax.testbed.judge import Setting

FRESH, MORE, TOP = 8, 8, 10.0
FAMILIES = "linear", "scaled_linear", "cosine", "cosine_betas", "edm", "ve", "flow"
LEFT_OUT = "euler", "euler_ancestral", "dpm_1", "rk45"  # other names of ddim; takes as many calls as it pleases
OPTIONS = {  # beside a row's defaults
    "ddim": [{"eta": 0.5}, {"eta": 1.0}], "deis": [{"order": 1}, {"order": 2}], "dpmpp_2m_sde": [{"eta": 0.5}],
    "dpmpp_3m_sde": [{"eta": 0.5}], "ipndm": [{"order": 2}, {"order": 3}], "lms": [{"order": 2}, {"order": 3}],
    "annealed_langevin": [{"per_level": 1}], "restart": [{"repeats": 1, "steps": 1}],
    "unipc": [{"order": 1}, {"order": 2}, {"taper": 1}], "dpmpp_3m": [{"taper": 1}],
}  # fmt: skip


class Judge:
    """The starts of a seed, and the distances of their ends to the law."""

    def __init__(self, seed, n):
        keys = jax.random.split(jax.random.key(seed), 3)
        self.seed, self.x0, self.z = seed, world().draw(keys[0], n), jax.random.normal(keys[1], (n, 2))
        u = jax.random.normal(jax.random.key(0), (2, 64))  # as sliced_wasserstein, whose sort is slow
        self.u, truth = np.asarray(u / jnp.linalg.norm(u, axis=0, keepdims=True)).T, world().draw(keys[2], n)
        self.truth, self.flow = np.sort(self.u @ np.asarray(truth).T), cache(self._flow)
        assert np.isclose(self.sw(np.asarray(self.x0)), sliced_wasserstein(self.x0, truth))

    def start(self, level):
        return np.asarray(level[0] * self.x0 + level[1] * self.z)

    def sw(self, x):
        return float(np.mean(np.sqrt(np.mean((np.sort(self.u @ x.T) - self.truth) ** 2, axis=1))))

    def _flow(self, level, n=2048):
        """The ends of the first n, along the circle alpha^2 + sigma^2 = 1: any schedule's, up to a scale."""
        ratio = level[1] / max(level[0], 1e-300)
        angles = np.arctan([ratio, *np.geomspace(min(ratio, 1e4), 1e-5, 2000)[1:], 0])
        return np.asarray(follow(2 / np.pi * angles, self.start(level)[:n] / np.hypot(*level)))

    def __call__(self, row):
        """The samples; not finite for a row that breaks down, or its budget."""
        try:
            x, calls = row.run(self.start(row.level), self.seed)
        except Exception:  # a peer's own, with options that it takes and cannot follow
            return self.z + np.nan
        return x if calls <= row.budget else x + np.nan

    def both(self, row):
        """(SW, RMS)."""
        if row.level[1] < TOP * row.level[0] or not np.isfinite(x := self(row)).all():
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

    def stack(name, **options):
        return jnp.stack([grids.pad(grids.GRIDS[name](schedule, n, **options), most + 1) for n in range(1, most + 1)])

    least = time_of_log_snr(schedule, -2 * jnp.log(jnp.asarray(LOWEST)))
    even = {name: jax.jit(jax.vmap(lambda t, name=name: stack(name, least=t)))(least) for name in ("log_snr", "rho")}
    made = {name: stack(name) for name in ("uniform", "quadratic", "trailing", "leading")}
    return made | {f"{name} to {low}": ts for name in even for low, ts in zip(LOWEST, even[name], strict=True)}


def ours(rule, options, family):
    """The rows of a rule on a schedule; none where it is refused."""
    process, made = Setting(rule, family, "x0", SOLVERS[rule]).process, []
    try:
        solver, exact = SOLVERS[rule](process, **options), world().denoise(process.schedule)
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
    for (grid, stack), budget in product(grids_of(family).items(), BUDGETS):
        for ts in stack[np.flatnonzero(np.asarray(plan(stack)) <= budget)[-1:]]:
            level = tuple(float(part) for part in process.schedule(ts[0]))
            yield Row("ours", named(rule, options), f"{family}, {grid}", budget, level, partial(run, ts=ts))


def lines(scores, fresh, budget):
    """A section of Markdown: the best of every side, how much closer ours is, and every rule at its best."""
    here, first, rules = {r: s for r, s in scores.items() if r.budget == budget and s[0] < np.inf}, {}, {}
    ranks, root = {"SW": lambda row: np.mean(fresh[row]), "RMS": lambda row: here[row][1]}, np.sqrt(FRESH - 1)
    yield f"\n## {budget} calls\n\n| best by | of | SW, {FRESH} fresh seeds | RMS | rule | grid |\n|{'---|' * 6}"
    for by, side in product(ranks, dict.fromkeys(row.side for row in here)):
        best = sorted((row for row in here if row.side == side and row in fresh), key=ranks[by])
        first[by, side] = best[0]
        for row in best[: 5 if side == "ours" else 3]:
            sw = f"{np.mean(fresh[row]):.4f} ± {np.std(fresh[row]) / root:.4f}"
            yield f"| {by} | {side} | {sw} | {here[row][1]:.4f} | {row.rule} | {row.grid} |"
    for side in [side for by, side in first if by == "SW" and side != "ours"]:
        ratio = fresh[first["SW", side]] / fresh[first["SW", "ours"]]
        sw, rms = f"{np.mean(ratio):.3f} ± {np.std(ratio) / root:.3f}", ranks["RMS"](first["RMS", side])
        yield f"\nBest of {side} / best of ours: SW {sw}, RMS {rms / ranks['RMS'](first['RMS', 'ours']):.3f}"
    yield f"\n| every rule | of | SW | on the grid | RMS | on the grid |\n|{'---|' * 6}"
    for row, score in here.items():
        rules.setdefault(row[:2], []).append([(distance, row.grid) for distance in score])
    best = [(min(sw), min(rms), *rule) for rule, many in rules.items() for sw, rms in [zip(*many, strict=True)]]
    for (sw, one), (rms, two), side, rule in sorted(best):
        yield f"| {rule} | {side} | {sw:.4f} | {one} | {rms:.4f} | {two} |"


def main(argv):
    parser = argparse.ArgumentParser(prog="python -m bench nfe")
    parser.add_argument("--num", type=int, default=4096, help="samples (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="a Markdown file for every rule as well")
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    judge = Judge(0, args.num)
    options = [(rule, o) for rule in SOLVERS if rule not in LEFT_OUT for o in [{}, *OPTIONS.get(rule, [])]]
    jobs = [partial(ours, *option, family) for option, family in product(options, FAMILIES)]
    many = ThreadPool(2).imap(lambda job: [(row, judge.both(row)) for row in job()], jobs)
    scores = dict(chain.from_iterable(tqdm(many, total=len(jobs), desc="ours")))
    if all(map(find_spec, ("torch", "diffusers", "k_diffusion"))):
        from bench import nfe_peers

        scores |= {row: judge.both(row) for job in tqdm(nfe_peers.jobs(), desc="theirs") for row in job()}
    else:
        print("ours alone; for the others, `make parity` once, and then .venv-peers/bin/python -m bench nfe")
    groups = [[r for r in scores if (r.side, r.budget) == key] for key in {(r.side, r.budget) for r in scores}]
    best = [sorted(rows, key=lambda row: scores[row][by])[:4] for rows, by in product(groups, (0, 1))]
    again = [Judge(seed, MORE * args.num) for seed in range(1, FRESH + 1)]
    fresh = {row: np.asarray([judge.sw(judge(row)) for judge in again]) for row in tqdm({*chain(*best)}, desc="again")}
    low, high = floor(jax.random.key(99), lambda key: world().draw(key, MORE * args.num), sliced_wasserstein)
    chance = f"Chance alone leaves SW {low:.4f} to {high:.4f} (5 % to 95 %) of {MORE * args.num} fresh samples."
    sections = ["\n".join(lines(scores, fresh, budget)) for budget in BUDGETS]
    print(chance, *(section.split("\n\n| every rule")[0] for section in sections), sep="\n")
    if args.out:
        head = f"# Few network calls\n\nWritten by `python -m bench nfe --out {args.out}`.\n\n```\n{__doc__}```\n\n"
        args.out.write_text("\n".join([head + chance, *sections, ""]))

"""What a run makes of data that it has not seen: the loss at every noise level, and the likelihood in bits.

Each writes numbers with their passport, and a picture, into the folder evaluation of the workdir.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax import data, training
from diffjax.assessment.run import Run, opened, passport
from diffjax.assessment.sets import survey
from diffjax.data import Source
from diffjax.diffusion.dequantization import bits_per_dim, decoder_nats, gaussian, place, uniform
from diffjax.diffusion.likelihood import elbo_continuous, hutchinson, ode
from diffjax.diffusion.sampling import row_keys
from diffjax.diffusion.schedules import log_snr, time_of_log_snr
from diffjax.diffusion.types import Schedule
from diffjax.errors import InputError
from diffjax.evaluation import make_losses, plots
from diffjax.evaluation.passport import normal, write_numbers
from diffjax.experiment import Experiment

LEAST = 1e-3  # the time as which data are read


def noise_levels(workdir: str | Path, *, points: int = 32, **which: Any) -> Path:
    """The held-out loss at `points` even times, and a picture of it against log-SNR, whose path is returned.

    `which` parameters: step, ema, raw, as for `load`.  Raises InputError.
    """
    if not 2 <= points <= 1000:
        raise InputError(f"a curve takes 2 to 1000 noise levels; got {points}")
    run = opened(workdir, **which)
    experiment, source = run.experiment, run.heldout
    times, size = (np.arange(points) + 0.5) / points, experiment.config["batch_size"]
    rows = data.heldout(source, size, value_range=run.range)
    sharding = training.batch_sharding(training.make_mesh())
    bar = tqdm(rows, total=-(-source.size // size), unit="batch", desc="noise levels")
    losses = make_losses(experiment.denoise, experiment.process, levels=times)
    means, errors = losses(run.model.params, (training.spread(batch, sharding) for batch in bar))
    snr = np.asarray(log_snr(experiment.process.schedule, jnp.asarray(times, jnp.float32)), np.float64)
    numbers = {
        f"loss_t{t:.4f}": normal(mean, error) | {"log_snr": at}
        for t, mean, error, at in zip(times, means, errors, snr.tolist(), strict=True)
    }
    how = {"levels": points, "weight": experiment.config["weight"]}
    return _write(run, "noise_levels", numbers, plots.loss_against_noise(snr, means, errors), n=source.size, how=how)


def likelihood(
    workdir: str | Path, *, num: int = 256, steps: int = 20, probes: int = 2, draws: int = 32, batch: int = 128,
    seed: int = 0, **which: Any,
) -> Path:  # fmt: skip
    """Bits a dimension of held-out data, by the ODE and by the bound (ELBO); the path of their picture.

    Whole numbers are dequantised uniformly for the ODE and reconstructed as cells for the bound: both are bounds on the
    bits of the cells.  Continuous data has a density, whose bits depend on its unit and may be negative.
    """
    if num < 2 or batch < 1:
        raise InputError(f"an interval takes at least 2 examples, and a batch at least 1; got {num} and {batch}")
    if min(steps, draws, probes) < 2 or steps % 2 or draws % 2:
        raise InputError(
            f"errors come from halves: steps and draws must be even, probes at least 2; got {steps}, {draws}, {probes}"
        )
    run = opened(workdir, **which)
    source = run.heldout
    cells, num = cells_of(source, run.range), min(num, source.size)
    rules = _rules(run.experiment, cells, steps=steps, probes=probes, draws=draws)
    parts: dict[str, list] = {name: [] for name in rules}
    for keys, rows in _batches(source, run.range, cells, num=num, batch=batch, seed=seed):
        for name, rule in rules.items():
            answer, protocol = rule(run.model.params, keys, rows)
            parts[name].append((training.to_host(answer), protocol))
    numbers, bits = {}, {}
    for name, some in parts.items():
        each, estimator, solver = np.concatenate([rows for rows, _ in some], axis=1)[:, :num].astype(np.float64)
        bits[name] = each
        numbers[name] = normal(each.mean(), each.std(ddof=1) / math.sqrt(num)) | {
            "estimator_error": float(np.sqrt(np.sum(estimator**2)) / num),
            "solver_error": float(solver.mean()),
            "protocol": some[0][1],
        }
    how = {"steps": steps, "probes": probes, "draws": draws, "cells": cells and cells._asdict()}
    for name, found in numbers.items():
        low, high = found["interval"]
        print(f"{name:5} {found['value']:.4f} bits a dimension (95 %: {low:.4f} to {high:.4f}), {found['protocol']}")
    figure = plots.distributions(bits, x="bits a dimension", y="examples")
    return _write(run, "likelihood", numbers, figure, n=num, how=how, seed=seed)


def _write(run: Run, name: str, numbers: dict, figure: Any, *, n: int, how: dict[str, Any], seed: int = 0) -> Path:
    """Numbers on the held-out data with their passport, and their picture, whose path is returned."""
    reference = survey(run.experiment.config["data"]["heldout"], run.heldout)
    labels = "each example's own" if reference.source.classes else None
    about = passport(n=n, reference=reference, labels=labels, sampler=how, model=run.identity, seed=seed)
    write_numbers(run.folder / f"{name}.json", numbers, about)
    return plots.save(figure, run.folder / f"{name}.png")


class Cells(NamedTuple):
    """What whole numbers stand for: cells of one width around the values that the network was trained on."""

    levels: int
    low: float  # of the lowest cell
    high: float  # of the highest


def cells_of(source: Source, value_range: tuple[float, float]) -> Cells | None:
    """The cells of data that is stored as whole numbers of a declared range; None for continuous data."""
    if source.low is None or source.high is None or source.read(np.arange(1))["x"].dtype.kind not in "iu":
        return None
    levels, (low, high) = round(source.high - source.low) + 1, value_range
    half = (high - low) / (levels - 1) / 2
    return Cells(levels, low - half, high + half)


def _rules(experiment: Experiment, cells: Cells | None, *, steps: int, probes: int, draws: int) -> dict[str, Callable]:
    """{name: (params, keys, rows) -> (bits, estimator's error, solver's error) [3, B], protocol)}."""
    schedule, dims = experiment.process.schedule, math.prod(experiment.source.shape)
    options: dict[str, Any] | None = cells and dict(levels=cells.levels, low=cells.low, high=cells.high)
    trace, least = hutchinson(probes), _last_time(schedule, cells)

    def by_ode(denoise, keys, x, cond):
        x, offset = uniform(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), x, **options) if options else (x, 0.0)
        return ode(denoise, schedule, x, steps=steps, divergence=trace, key=keys, cond=cond, least=LEAST), offset

    def by_elbo(denoise, keys, x, cond):
        x, ends = (place(x, 0.5, **options), decoder_nats(**options)) if options else (x, gaussian)
        bound = elbo_continuous(keys, denoise, schedule, x, draws=draws, least=least, cond=cond, reconstruction=ends)
        return bound, 0.0

    def compiled(rule):
        protocol = []

        @jax.jit
        def run(params, keys, rows):
            found, offset = rule(lambda *at: experiment.denoise(params, *at), keys, rows["x"], rows.get("label"))
            protocol[:] = [found.protocol]
            bits = bits_per_dim(jnp.asarray(found.nats), dims, offset=offset)
            errors = [-bits_per_dim(error, dims) for error in (found.standard_error, found.solver_error)]
            return jnp.stack([bits, *errors])

        return lambda *inputs: (run(*inputs), protocol[0])

    return {"ode": compiled(by_ode), "elbo": compiled(by_elbo)}


def _last_time(schedule: Schedule, cells: Cells | None) -> float:
    """Where a bound leaves the rest to the decoder: at noise of a quarter of a cell, which it reads almost surely.

    Any time gives a bound; later ones ask the network for what the decoder knows.
    """
    if cells is None:
        return LEAST
    quarter = (cells.high - cells.low) / cells.levels / 4
    return max(LEAST, float(time_of_log_snr(schedule, jnp.asarray(-2 * math.log(quarter)))))


def _batches(source: Source, ends: tuple[float, float], cells: Cells | None, *, num: int, batch: int, seed: int):
    """(keys, rows) of one size, on the devices; x are whole levels where there are cells.  The last is filled up."""
    mesh = training.make_mesh()
    size, sharding = batch + -batch % mesh.size, training.batch_sharding(mesh)
    for first in tqdm(range(0, num, size), unit="batch", desc="likelihood"):
        rows = data.read(source, np.minimum(np.arange(first, first + size), num - 1))
        levels = rows["x"].astype(np.int32) - round(source.low or 0)
        x = levels if cells else data.scaled(rows["x"], source, ends)
        yield row_keys(jax.random.key(seed), size, first=first), training.spread(rows | {"x": x}, sharding)

"""The sampler of an experiment: its denoiser, guided or not, and a solver that is named, as one pure function."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffjax.diffusion.gaussian import mean
from diffjax.diffusion.grids import GRIDS, check
from diffjax.diffusion.guidance import classifier_free
from diffjax.diffusion.sampling import generate
from diffjax.diffusion.solvers import ADAPTIVE, SOLVERS, draws_noise
from diffjax.errors import InputError
from diffjax.experiment import Experiment, pick


def sampler(experiment: Experiment, spec: Mapping[str, Any], *, guided: bool) -> Callable:
    """(params, keys [B], ts [n + 1], labels [B] or None, scale, knobs) -> x [B, *S], by the solver that `spec` names.

    A learned variance is that of `ancestral` without guidance; all others bring their own, and take x0_hat alone.  It
    is pure, to be compiled, once for all grids of n steps, repetitions at the end included.  `knobs` are numbers of
    the solver that may be traced (see `knobs_of`).  Without guidance `scale` is ignored and the network is called on
    the batch alone, otherwise on twice the batch.
    """

    learned = experiment.config["process"]["name"] == "learned_variance"
    takes_it = spec["name"] == "ancestral" and not guided
    process = experiment.process if takes_it else experiment.fixed

    def run(params, keys, ts, labels, scale, knobs):
        def answer(xt, t, cond):
            return experiment.denoise(params, xt, t, cond)

        denoise = mean(answer) if learned and not takes_it else answer
        solver = pick(SOLVERS, "solver", spec, process, **knobs)
        guide = classifier_free(denoise, experiment.source.classes, scale) if guided else denoise
        like = jnp.zeros((len(keys), *experiment.source.shape))
        return generate(keys, guide, solver, process=process, ts=ts, like=like, cond=labels, padded=True)

    return run


def settled(
    experiment: Experiment, *, solver: str | None = None, steps: int | None = None, grid: str = "uniform",
    start: float = 1.0, times: Sequence[float] | None = None, **options: Any,
) -> tuple[dict[str, Any], dict[str, float], Float[Array, "n+1"]]:  # fmt: skip
    """(a solver's spec, its knobs, the grid), with the config's solver and steps where none are given.

    `grid` names how the steps are spaced (grids.py); start < 1 begins it below pure noise; `times` are a grid of their
    own, in place of all three.  Raises InputError for whatever the grid or the solver refuses.
    """
    defaults = experiment.config["sampler"]
    if times is None:
        steps = int(defaults["steps"] if steps is None else steps)
        ts = pick(GRIDS, "grid", {"name": grid}, experiment.process.schedule, steps, start=start)
    else:
        ts = _given(times, alone=steps is None and grid == "uniform" and start == 1.0)
    return *knobs_of(experiment, {"name": solver or defaults["solver"], **options}), ts


def _given(times: Sequence[float], *, alone: bool) -> Float[Array, "n+1"]:
    """A grid by its times.  Raises InputError unless they fall within [0, 1], and decide alone."""
    if not alone:
        raise InputError("times are a grid of their own; leave out steps, grid and start")
    try:
        return check(times)
    except ValueError as error:
        raise InputError(str(error)) from None


def described(experiment: Experiment, *, guidance: float | None = None, **chosen: Any) -> dict[str, Any]:
    """What decides a sample but for the parameters, the keys and the labels, and the network calls that one takes.

    The keywords are those of `settled`, and guidance, which doubles the calls.  Calls are None for a solver that makes
    as many as its tolerance takes.
    """
    spec, turned, ts = settled(experiment, **chosen)
    named = dict(sorted({**spec, **turned}.items()))
    calls = None
    if spec["name"] not in ADAPTIVE:
        moves = pick(SOLVERS, "solver", named, experiment.fixed).plan(ts).moves
        calls = int(np.any(np.reshape(moves, (len(moves), -1)), axis=1).sum()) * (1 if guidance is None else 2)
    times = np.asarray(ts, np.float64).round(7).tolist()
    return {"solver": named.pop("name"), "options": named, "times": times, "guidance": guidance, "calls": calls}


def knobs_of(experiment: Experiment, spec: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """A solver's spec without its knobs, and the knobs: the numbers that it takes at run time, like eta.

    A knob at zero stays in the spec: a solver that adds no noise is another program, and draws none; one that never
    does grants eta = 0 without having it.  Raises InputError for whatever the solver refuses.
    """
    row = SOLVERS.get(spec["name"])
    known = inspect.signature(row).parameters if row else {}
    if spec.get("eta") == 0 and row and "eta" not in known and not draws_noise(row(experiment.process)):
        spec = {key: value for key, value in spec.items() if key != "eta"}
    pick(SOLVERS, "solver", spec, experiment.process)
    turned = {
        key: float(value)
        for key, value in spec.items()
        if key in known and known[key].annotation is ArrayLike and value
    }
    return {key: value for key, value in spec.items() if key not in turned}, turned

"""A run that is judged, and the passport of what is found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffjax.assessment.sets import Reference
from diffjax.data import Source
from diffjax.experiment import Experiment, build, require_heldout
from diffjax.model import Model, restored
from diffjax.record import identity, record_of, versions


class Run(NamedTuple):
    """A model whose experiment reads its data, the folder of what is found, and what identifies its parameters."""

    model: Model
    folder: Path
    identity: Mapping[str, Any]

    @property
    def experiment(self) -> Experiment:
        return self.model.experiment

    @property
    def heldout(self) -> Source:
        """Raises InputError if there are none."""
        return require_heldout(self.experiment)

    @property
    def range(self) -> tuple[float, float]:
        """Of the data, as the network sees it."""
        return tuple(self.experiment.config["data"]["range"])


def opened(workdir: str | Path, *, step: int | None = None, ema: float | None = None, raw: bool = False) -> Run:
    """The run in a workdir, with the parameters that `load` would take.  Raises InputError, as `load`."""
    record = record_of(workdir)
    model = restored(build(record["config"]), workdir, step=step, ema=ema, raw=raw)
    return Run(model, Path(workdir) / "evaluation", identity(record, step=model.step, ema=ema, raw=raw))


def passport(
    *, n: int, reference: Reference, model: Mapping[str, Any], features: Mapping[str, Any] | None = None,
    labels: str | None, sampler: Mapping[str, Any] | None, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The parts of evaluation/passport.py, of numbers that were made here and now."""
    return {
        "n": n,
        "reference": {"name": reference.name, "size": reference.source.size, "hash": reference.hash},
        "features": features,
        "labels": labels,
        "sampler": sampler,
        "model": model,
        "seed": seed,
        "versions": versions(),
    }

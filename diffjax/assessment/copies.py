"""Has a run learned its training data by heart?  Samples beside their nearest training examples.

The distance of a sample to its nearest training example is given over the median of what held-out examples have to
theirs: about 1 is as new as held-out data, near 0 is a copy (evaluation/neighbours.py).  Distances are those of
features: of pixels, unless a network is named.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diffjax import data
from diffjax.assessment.features import Extractor, data_of, extractor, stated
from diffjax.assessment.sets import drawn, kept, survey
from diffjax.data import Source
from diffjax.errors import InputError
from diffjax.evaluation.neighbours import nearest, novelty
from diffjax.evaluation.passport import normal, write_numbers
from diffjax.evaluation.pictures import strips
from diffjax.experiment import build
from diffjax.model import load
from diffjax.record import identity, read_record, versions

SHOWN, BESIDE = 10, 4  # samples in the picture, and training examples beside each
COPY = 0.5  # a sample at less than half the usual distance counts as one


def find_copies(
    workdir: str | Path, *, num: int = 1000, features: str = "pixels", weights: str | Path | None = None,
    batch: int = 500, seed: int = 0, step: int | None = None, ema: float | None = None, raw: bool = False,
    **chosen: Any,
) -> Path:  # fmt: skip
    """Draw samples and look for each in the training data; the path of a picture of those that are nearest.

    Numbers with their passport are beside it.  `chosen`: labels, solver and the rest of `make_stream`.  Raises
    InputError, among others for a run without held-out data.
    """
    model = load(workdir, step=step, ema=ema, raw=raw)
    own, record = build(model.experiment.config), read_record(Path(workdir))
    assert record
    if own.heldout is None:
        raise InputError(f"the run in {workdir} has no held-out data to compare with; set data.heldout and train again")
    folder, ends = Path(workdir) / "evaluation", tuple(own.config["data"]["range"])
    spec = {"name": features} | ({"weights": str(weights)} if weights else {})
    network = extractor(spec, data_of(own), folder / "features")
    samples = drawn(model, own.source, num=num, seed=seed, batch=batch, **chosen)
    x = np.concatenate([x for x, _ in samples.batches()])
    ours, which = _nearest(network, x, own.source, batch, k=BESIDE)
    theirs, _ = _nearest(network, _examples(own.heldout, ends, num, batch), own.source, batch, k=1)
    ratios = novelty(ours[:, 0], theirs[:, 0])
    share = float(np.mean(ratios < COPY))
    numbers = {
        "novelty": normal(ratios.mean(), ratios.std(ddof=1) / math.sqrt(num)) | {"least": float(ratios.min())},
        "copies": normal(share, math.sqrt(share * (1 - share) / num)) | {"nearer_than": COPY},
    }
    seen = survey(own.source)
    passport = {
        "n": num,
        "reference": {"name": own.config["data"]["split"], "size": own.source.size, "hash": seen.hash},
        "features": stated(network),
        "labels": samples.labels,
        "sampler": samples.sampler,
        "model": identity(record, step=model.step, ema=ema, raw=raw),
        "seed": seed,
        "versions": versions(),
    }
    write_numbers(folder / "copies.json", numbers, passport)
    print(f"novelty {ratios.mean():.3f}, the least {ratios.min():.3f}; {share:.2%} nearer than {COPY} of what is usual")
    return _picture(folder / "copies.png", x, ratios, own.source, which, ends)


def _nearest(network: Extractor, x: np.ndarray, source: Source, batch: int, *, k: int):
    """(distances [n, k], numbers [n, k]) of the training examples nearest to x."""
    queries = np.concatenate([network.apply(x[i : i + batch])[0] for i in range(0, len(x), batch)])
    known = kept(source, network.range, count=None, batch=batch)
    bar = tqdm(known.batches(), total=math.ceil(source.size / batch), unit="batch", desc="training data")
    return nearest(queries, (network.apply(rows)[0] for rows, _ in bar), k=k)


def _examples(source: Source, ends: tuple[float, float], num: int, batch: int) -> np.ndarray:
    some: Iterator = kept(source, ends, count=min(num, source.size), batch=batch).batches()
    return np.concatenate([x for x, _ in some])


def _picture(path: Path, x: np.ndarray, ratios: np.ndarray, source: Source, which: np.ndarray, ends) -> Path:
    """The samples nearest to the training data, each beside its nearest examples; of no pictures, the numbers."""
    first = np.argsort(ratios)[:SHOWN]
    beside = data.scaled(data.read(source, which[first].ravel())["x"], source, ends).reshape(
        len(first), BESIDE, *x.shape[1:]
    )
    rows = np.concatenate([x[first][:, None], beside], axis=1)
    try:
        strips(rows, ends, captions=[f"{ratios[i]:.2f}" for i in first]).save(path)
    except ValueError:
        return path.with_suffix(".json")
    return path

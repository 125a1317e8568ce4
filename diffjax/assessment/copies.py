"""Has a run learned its training data by heart?  Samples beside their nearest training examples.

The distance of a sample to its nearest training example is given over the median of what held-out examples have to
theirs: about 1 is as new as held-out data, near 0 is a copy (evaluation/neighbours.py).  Distances are those of
features: of pixels, unless a network is named.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diffjax import data
from diffjax.assessment.features import Extractor, data_of, extractor, stated
from diffjax.assessment.run import opened, passport
from diffjax.assessment.sets import drawn, scaled, survey
from diffjax.data import Source
from diffjax.evaluation.neighbours import nearest, novelty
from diffjax.evaluation.passport import normal, write_numbers
from diffjax.evaluation.pictures import strips

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
    run = opened(workdir, step=step, ema=ema, raw=raw)
    own, heldout = run.experiment, run.heldout
    network = extractor({"name": features, "weights": weights and str(weights)}, data_of(own), run.folder / "features")
    reference = survey(own.config["data"]["split"], own.source)
    samples = drawn(run.model, reference.frequencies, num=num, seed=seed, batch=batch, **chosen)
    ours, which, x = _nearest(network, (x for x, _ in samples.batches()), own.source, batch, k=BESIDE)
    some = scaled(heldout._replace(size=min(num, heldout.size)), run.range, batch=batch)
    theirs, _, _ = _nearest(network, (x for x, _ in some), own.source, batch, k=1)
    ratios = novelty(ours[:, 0], theirs[:, 0])
    share = float(np.mean(ratios < COPY))
    numbers = {
        "novelty": normal(ratios.mean(), ratios.std(ddof=1) / math.sqrt(num)) | {"least": float(ratios.min())},
        "copies": normal(share, math.sqrt(share * (1 - share) / num)) | {"nearer_than": COPY},
    }
    about = passport(
        n=num, reference=reference, features=stated(network), labels=samples.labels, sampler=samples.sampler,
        model=run.identity, seed=seed,
    )  # fmt: skip
    write_numbers(run.folder / "copies.json", numbers, about)
    print(f"novelty {ratios.mean():.3f}, the least {ratios.min():.3f}; {share:.2%} nearer than {COPY} of what is usual")
    return _picture(run.folder / "copies.png", x, ratios, own.source, which, run.range)


def _nearest(network: Extractor, batches: Iterable[np.ndarray], source: Source, batch: int, *, k: int):
    """(distances [n, k], numbers [n, k]) of the training examples nearest to what the batches hold, and x [n, *S]."""
    x, queries = map(np.concatenate, zip(*((x, network.apply(x)[0]) for x in batches), strict=True))
    known = scaled(source, network.range, batch=batch)
    bar = tqdm(known, total=math.ceil(source.size / batch), unit="batch", desc="training data")
    return *nearest(queries, (network.apply(rows)[0] for rows, _ in bar), k=k), x


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

"""How good samples are: features of them and of a reference, metrics with intervals, a passport, a picture.

Samples and reference come by in batches: memory does not grow with their number (evaluation/summary.py keeps a bounded
number of rows for the metrics that need rows).
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from diffjax.assessment.features import Data, Extractor, data_of, extractor, stated
from diffjax.assessment.run import Run, opened, passport
from diffjax.assessment.sets import Reference, Samples, drawn, file_of, kept, scaled, stored, survey
from diffjax.errors import InputError, unknown, writing
from diffjax.evaluation import summary as summaries
from diffjax.evaluation.jackknife import jackknife
from diffjax.evaluation.metrics import METRICS, caveats
from diffjax.evaluation.passport import normal, write_numbers
from diffjax.evaluation.pictures import save_picture
from diffjax.evaluation.summary import Summary, summarise

DEFAULT = ("frechet", "kid", "precision", "recall", "density", "coverage", "inception_score")
NUM, LEAST, SHOWN = 10_000, 100, 100  # samples that are drawn, that intervals take, that the picture shows


class Scored(NamedTuple):
    """Samples, what they are compared with and through what, and where the numbers go."""

    samples: Samples
    reference: Reference
    network: Extractor
    folder: Path


def score(
    workdir: str | Path | None = None, *, samples: str | Path | None = None, reference: str | Path | None = None,
    out: str | Path | None = None, metrics: Sequence[str] = DEFAULT, features: str = "classifier",
    weights: str | Path | None = None, batch: int = 500, seed: int = 0, step: int | None = None,
    ema: float | None = None, raw: bool = False, **chosen: Any,
) -> Path:  # fmt: skip
    """Score samples of a run, or stored ones, beside the run's training data or a stored set; the file of numbers.

    `chosen` is num, labels and how a run samples: solver, steps, grid, guidance, as for `make_stream`.  The labels of a
    run are as frequent as in its training data, unless given.  Raises InputError for what does not fit together.
    """
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    if workdir is None and (samples is None or reference is None):
        raise InputError("there is nothing to score; name a --workdir, or both --samples and --reference")
    run = None if workdir is None else opened(workdir, step=step, ema=ema, raw=raw)
    given = _prepared(
        run, samples=samples, reference=reference, out=out, batch=batch, seed=seed,
        spec={"name": features, "weights": weights and str(weights)}, chosen=chosen,
    )  # fmt: skip
    if given.samples.count < LEAST:
        raise InputError(f"numbers with intervals take at least {LEAST} samples; got {given.samples.count}")
    theirs = _reference(given, batch)
    ours, agreement, first = _seen(given)
    for sentence in caveats(ours, theirs):
        print(f"note: {sentence}")
    numbers = _measured(metrics, ours, theirs, given.network) | agreement
    for name, number in numbers.items():
        low, high = number["interval"]
        print(f"{name:18} {number['value']:.6g}   ({number['level']:.0%}: {low:.6g} to {high:.6g})")
    about = passport(
        n=given.samples.count, reference=given.reference, features=stated(given.network), labels=given.samples.labels,
        sampler=given.samples.sampler, seed=seed,
        model=run.identity if run and samples is None else {"samples": given.samples.hash},
    )  # fmt: skip
    write_numbers(given.folder / "scores.json", numbers, about)
    save_picture(given.folder / "scored.png", first[0], given.network.range, labels=first[1])
    return given.folder / "scores.json"


def _prepared(run: Run | None, *, samples, reference, out, batch, seed, spec, chosen) -> Scored:
    """Everything that can be wrong with what is asked for is found here."""
    own, ends = (run.model.experiment, run.range) if run else (None, (-1.0, 1.0))
    if reference is not None:
        source = stored(reference, shape=own and own.source.shape, value_range=ends)
        against = survey(file_of(reference).name, source)
    else:
        assert own is not None
        against = survey(own.config["data"]["split"], own.source)
    if samples is not None:
        if more := set(chosen) - {"num"}:
            raise InputError(f"stored samples are what they are; leave out {', '.join(sorted(more))}")
        source = stored(samples, shape=against.source.shape, value_range=ends)
        ours = kept(source, ends, count=chosen.get("num"), batch=batch)
    else:
        assert run is not None and own is not None
        trained = against if reference is None else survey(own.config["data"]["split"], own.source)
        ours = drawn(run.model, trained.frequencies, **({"num": NUM} | chosen), batch=batch, seed=seed)
    folder = Path(out) if out else run.folder if run else Path("evaluation")
    learned = data_of(own) if own else Data(against.name, against.source, None, ends)
    return Scored(ours, against, extractor(spec, learned, folder / "features"), folder)


def _reference(given: Scored, batch: int) -> Summary:
    """The reference's summary, from the cache if it was made before of the same data by the same network."""
    told = json.dumps(stated(given.network), sort_keys=True).encode()  # its weights, its pipeline
    by = hashlib.sha256(told).hexdigest()[:16]
    known = given.reference
    path = given.folder / "features" / f"reference_{given.network.name}_{by}_{known.hash}.npz"
    if path.exists():
        return summaries.load(path)[0]
    batches = scaled(known.source, given.network.range, batch=batch)
    bar = tqdm(batches, total=math.ceil(known.source.size / batch), unit="batch", desc="reference")
    found = summarise(given.network.apply(x) for x, _ in bar)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    summaries.save(path, found, hash=known.hash, features=stated(given.network))
    return found


def _seen(given: Scored) -> tuple[Summary, dict[str, Any], tuple[np.ndarray, np.ndarray | None]]:
    """(summary of the samples, how often the network takes them for their label, the first of them with labels)."""
    first, right, asked, classes = [], 0, 0, given.reference.source.classes

    def features():
        nonlocal right, asked
        for x, label in given.samples.batches():
            if bad := int((~np.isfinite(x).reshape(len(x), -1).all(1)).sum()):
                raise InputError(f"{bad} of {len(x)} samples are not finite; look at the model or at how it samples")
            found, probabilities = given.network.apply(x)
            if sum(len(some) for some, _ in first) < SHOWN:
                first.append((x, label))
            if label is not None and probabilities is not None and probabilities.shape[1] == classes:
                right, asked = right + int((probabilities.argmax(1) == label).sum()), asked + len(label)
            yield found, probabilities

    summary = summarise(features())
    share = right / max(asked, 1)
    agreement = {"agreement": normal(share, math.sqrt(share * (1 - share) / asked))} if asked else {}
    labels = None if first[0][1] is None else np.concatenate([label for _, label in first])[:SHOWN]
    return summary, agreement, (np.concatenate([x for x, _ in first])[:SHOWN], labels)


def _measured(metrics: Sequence[str], ours: Summary, theirs: Summary, network: Extractor) -> dict[str, Mapping]:
    numbers = {}
    for name in tqdm(metrics, unit="metric", desc="metrics"):
        if name == "inception_score" and ours.classes is None:
            continue  # a network without classes has none
        numbers[name.replace("frechet", network.frechet)] = jackknife(METRICS[name], ours, theirs)
    return numbers

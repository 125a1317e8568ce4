"""What metrics need to know of a set of samples, gathered in one pass with memory that does not grow with their number.

    mean = sum_g n_g mean_g / n        scatter = sum_g scatter_g + n_g (mean_g - mean)(mean_g - mean)^T
                                                                                                Chan et al. 1983
Rows are dealt to groups like cards, one to each in an order drawn anew, so that groups are alike whatever the order of
the samples, by class or not; subsets and leaving out are merges of groups.  Of class probabilities p the sums of p and
of sum_k p_k log p_k are kept, and of the features as many rows as metrics may ask for: all, or a uniform choice among
all that came (Vitter 1985, algorithm R), for the first of a set that is ordered by class would be of a few classes.

A group of 2,048 features is 34 MB, so 20 of them would be 671 MB: their number is halved until they fit into 512 MiB,
which leaves 10 there and 20 up to 1,831 features.  In float32 the small eigenvalues would be lost.  A set that serves
only as a reference needs one group.
"""

import functools
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from diffjax.errors import InputError, writing

from .neighbours import others

MEMORY = 2**29  # bytes of the groups' scatter
DEALT = 128  # rows that a group gets at once: a product of matrices, not of vectors
NEAREST = 5  # the most that a metric asks for


class Moments(NamedTuple):
    """Of one set, or with a leading axis of groups."""

    count: np.ndarray  # [] or [G]
    mean: np.ndarray  # [d] or [G, d]
    scatter: np.ndarray  # [d, d] or [G, d, d]: the sum of (x - mean)(x - mean)^T

    @property
    def covariance(self) -> np.ndarray:
        """Of one set, unbiased: at least two rows."""
        return self.scatter / (self.count - 1)


class Classes(NamedTuple):
    """Sums over the rows of each group."""

    total: np.ndarray  # [G, K]: of p
    information: np.ndarray  # [G]: of sum_k p_k log p_k


@dataclass(frozen=True, eq=False)
class Summary:
    """`rows` are all rows, or `keep` chosen among them: len(rows) beside `count` says how many."""

    moments: Moments  # of every group
    classes: Classes | None
    rows: Float[np.ndarray, "r d"]

    @property
    def count(self) -> int:
        return int(self.moments.count.sum())

    @functools.cached_property
    def whole(self) -> Moments:
        return merge(self.moments)

    @functools.cached_property
    def near(self) -> Float[np.ndarray, "r k"]:
        """Distances of every kept row to its 5 nearest others, or as many as there are, the nearest first."""
        return others(self.rows, min(NEAREST, len(self.rows) - 1))


def merge(moments: Moments) -> Moments:
    """Groups as one set."""
    count = moments.count.sum()
    mean = moments.count @ moments.mean / count
    gaps = moments.mean - mean
    return Moments(count, mean, moments.scatter.sum(0) + (gaps.T * moments.count) @ gaps)


def without(summary: Summary, group: int) -> Summary:
    """The summary of all but one group."""
    rest = np.arange(len(summary.moments.count)) != group
    classes = summary.classes and Classes(*(part[rest] for part in summary.classes))
    rows = summary.rows[_deal(np.random.default_rng(0), len(summary.rows), len(rest)) != group]
    return Summary(Moments(*(part[rest] for part in summary.moments)), classes, rows)


def summarise(
    batches: Iterable[tuple[np.ndarray, np.ndarray | None]], *, groups: int = 20, keep: int = 10_000
) -> Summary:
    """Of (features [b, d], class probabilities [b, K] or None); the same to the bit however the rows are batched.

    Raises InputError for no rows, rows of several widths or shapes, and rows that are not finite.
    """
    deal, reservoir = np.random.default_rng(0), np.random.default_rng(1)
    moments = classes = rows = None
    count = bad = 0
    for x, p in _blocks(batches, groups):
        finite = np.isfinite(x).all(1) & (True if p is None else np.isfinite(p).all(1))
        bad, start, count = bad + int((~finite).sum()), count, count + len(x)
        if bad:
            continue  # only to say how many
        if moments is None or rows is None:
            groups = _affordable(groups, x.shape[1])
            moments, rows = _nothing(groups, x.shape[1]), np.empty((0, x.shape[1]), x.dtype)
            classes = None if p is None else Classes(np.zeros((groups, p.shape[1])), np.zeros(groups))
        groups_of = _deal(deal, len(x), groups)
        _add(moments, classes, x, p, groups_of)
        rows = _choose(reservoir, rows, x, start, keep)
    if bad:
        raise InputError(
            f"{bad} of {count} rows of features or class probabilities are not finite; look at the samples they are of"
        )
    if moments is None or rows is None:
        raise InputError("there are no samples to summarise; give at least one")
    return Summary(moments, classes, rows)


def _affordable(groups: int, d: int) -> int:
    while groups % 2 == 0 and groups * d * d * 8 > MEMORY:
        groups //= 2
    return groups


def _nothing(groups: int, d: int) -> Moments:
    return Moments(np.zeros(groups), np.zeros((groups, d)), np.zeros((groups, d, d)))


def _deal(key: np.random.Generator, count: int, groups: int) -> np.ndarray:
    """The group of each of `count` rows."""
    hands = np.tile(np.arange(groups), (-(-count // groups), 1))
    return key.permuted(hands, axis=1).ravel()[:count]


def _add(moments: Moments, classes: Classes | None, x: np.ndarray, p: np.ndarray | None, groups: np.ndarray) -> None:
    """Add rows to their groups, in place: the groups are too large to be copied."""
    for g in np.unique(groups):
        part = x[groups == g].astype(np.float64)
        mean = part.mean(0)
        gap, n, m = mean - moments.mean[g], moments.count[g], len(part)
        centred = np.concatenate([part - mean, np.sqrt(n * m / (n + m)) * gap[None]])
        moments.scatter[g] += centred.T @ centred
        moments.mean[g] += gap * m / (n + m)
        moments.count[g] += m
        if classes is not None and p is not None:
            q = p[groups == g].astype(np.float64)
            classes.total[g] += q.sum(0)
            classes.information[g] += (q * np.log(np.where(q > 0, q, 1))).sum()


def _choose(key: np.random.Generator, rows: np.ndarray, x: np.ndarray, start: int, keep: int) -> np.ndarray:
    """Rows `start` ... of the stream come by: each of all that have come so far is kept with the same probability."""
    free = max(keep - len(rows), 0)
    rows, x, start = np.concatenate([rows, x[:free]]), x[free:], start + len(x[:free])
    seat = key.integers(0, np.arange(start, start + len(x)) + 1)
    rows[seat[seat < keep]] = x[seat < keep]  # of several for a seat the last has it
    return rows


def _blocks(batches: Iterable[tuple[np.ndarray, np.ndarray | None]], groups: int) -> Iterator[tuple]:
    """The same rows in blocks of groups x DEALT, and the rest."""
    size, held = groups * DEALT, []
    for batch in batches:
        held.append(_checked(*batch, held[0] if held else None))
        while sum(len(x) for x, _ in held) >= size:
            x, p = _joined(held)
            yield x[:size], None if p is None else p[:size]
            held = [(x[size:], None if p is None else p[size:])]
    x, p = _joined(held) if held else (np.empty((0, 0)), None)
    if len(x):
        yield x, p


def _joined(held: list) -> tuple[np.ndarray, np.ndarray | None]:
    xs, ps = zip(*held, strict=True)
    return np.concatenate(xs), None if ps[0] is None else np.concatenate(ps)


def _checked(x: Any, p: Any, like: tuple | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Float32, or float64 if they came so; raises InputError for shapes that do not fit."""
    x, p = (a if a is None else np.asarray(a) for a in (x, p))
    x, p = (a if a is None or a.dtype == np.float64 else a.astype(np.float32) for a in (x, p))
    if x.ndim != 2 or (p is not None and (p.ndim != 2 or len(p) != len(x))):
        shape = "" if p is None else f" with class probabilities of shape {p.shape}"
        raise InputError(f"features of shape {x.shape}{shape}; expected [b, d] and, if any, [b, K]: flatten each row")
    width = lambda x, p: (x.shape[1], None if p is None else p.shape[1])  # noqa: E731
    if like is not None and width(x, p) != width(*like):
        raise InputError(
            f"a batch with {width(x, p)} features and classes after one with {width(*like)}; use one network for all"
        )
    return x, p


def save(path: Path, summary: Summary, **facts: Any) -> None:
    """Write the summary, and facts about it that JSON can hold, as npz."""
    classes = {} if summary.classes is None else summary.classes._asdict()
    with writing(path.parent), path.open("wb") as file:
        text = json.dumps(facts)
        np.savez(file, facts=text, rows=summary.rows, **summary.moments._asdict(), **classes)


def load(path: Path) -> tuple[Summary, dict[str, Any]]:
    """What `save` wrote: the summary and its facts.  Raises InputError for a file that is not one."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            moments = Moments(*(file[name] for name in Moments._fields))
            classes = Classes(*(file[name] for name in Classes._fields)) if "total" in file else None
            return Summary(moments, classes, file["rows"]), json.loads(str(file["facts"]))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds no summary of samples ({error}); make it anew") from error

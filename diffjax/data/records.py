"""Examples in ArrayRecord files, read at random from disk: what `python -m diffjax.cache` writes.

    path/train/examples.array_record    a record for each example: the bytes of x and then of its label, int32
    path/train/source.json              shape, dtype, size, classes and range

For data that is slow to read or larger than memory, and for latents that a slow encoder makes once.
"""

import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from diffjax.errors import InputError, writing

from .loader import read, scaled
from .source import Batch, Source
from .splits import located

FILE, FACTS = "examples.array_record", "source.json"


class Stored(NamedTuple):
    """Reading by index; each process opens the file for itself."""

    file: str
    shape: tuple[int, ...]
    dtype: str
    labelled: bool

    def __call__(self, indices: Int[np.ndarray, "n"]) -> Batch:
        raw = _open(self.file).__getitems__([int(i) for i in indices])
        size = int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize
        if any(len(one) != size + 4 * self.labelled for one in raw):
            raise ValueError(f"a record has another length than {size + 4 * self.labelled} bytes")
        x = np.stack([np.frombuffer(one[:size], self.dtype).reshape(self.shape) for one in raw])
        label = {"label": np.concatenate([np.frombuffer(one[size:], np.int32) for one in raw])} if self.labelled else {}
        return {"x": x} | label


@lru_cache(maxsize=8)
def _open(file: str) -> Any:
    import grain

    return grain.sources.ArrayRecordDataSource(file)


def records(split: str, *, path: str) -> Source:
    """A split of a folder that `python -m diffjax.cache` wrote.  Raises InputError if it is not one."""
    folder = located(str(Path(path) / "{split}"), split)
    try:
        facts = json.loads((folder / FACTS).read_text())
        shape, dtype, classes = tuple(facts["shape"]), facts["dtype"], facts["classes"]
        size = len(_open(str(folder / FILE)))
        if size != facts["size"]:
            raise ValueError(f"it holds {size} examples and not {facts['size']}")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"cannot read the examples in {folder}: {error}; write them with python -m diffjax.cache --out {path}"
        ) from error
    read_stored = Stored(str(folder / FILE), shape, dtype, bool(classes))
    return Source(read_stored, size, shape, classes, facts["low"], facts["high"], unit=facts["unit"], in_memory=False)


def store(
    source: Source, folder: Path, *, encode: Callable[[np.ndarray], np.ndarray] | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0), batch: int = 256, skip: bool = False,
) -> None:  # fmt: skip
    """Write a whole source, in its order, or what `encode` makes of it (float32 [b, *S] in value_range -> [b, *Z]).

    All or nothing: the folder appears when it is complete.  Raises InputError if it is there already.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    if folder.exists():
        raise InputError(f"{folder} is there already; remove it or name another with --out")
    draft = folder.with_name(f"{folder.name}.tmp")
    with writing(folder):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        writer = ArrayRecordWriter(str(draft / FILE), "group_size:1")
        x = np.zeros((0, *source.shape))
        for first in tqdm(range(0, source.size, batch), unit="batch"):
            rows = read(source, np.arange(first, min(first + batch, source.size)), skip=skip)
            x = rows["x"] if encode is None else np.asarray(encode(scaled(rows["x"], source, value_range)))
            if len(x) != min(batch, source.size - first):
                raise InputError(f"the encoder made {len(x)} of {len(rows['x'])} examples; it must keep their number")
            labels = [label.tobytes() for label in rows["label"]] if source.classes else [b""] * len(x)
            for one, label in zip(np.ascontiguousarray(x), labels, strict=True):
                writer.write(one.tobytes() + label)
        writer.close()
        kept = {"low": source.low, "high": source.high, "unit": source.unit} if encode is None else {}
        facts = {"shape": x.shape[1:], "dtype": str(x.dtype), "size": source.size, "classes": source.classes}
        facts |= {"low": None, "high": None, "unit": "latents"} | kept
        (draft / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        draft.rename(folder)

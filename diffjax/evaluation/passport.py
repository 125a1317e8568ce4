"""A number with its passport: what must be the same before two numbers may be compared.

Parts, each a plain value or a dict, read back from JSON as they were written:

    n           samples that were scored
    reference   what they were compared with: its name, size and hash
    features    the network that looked: its name, hash and width, and how pictures were prepared for it
    labels      how the classes of the samples were chosen
    sampler     solver, grid, steps, guidance, plan, network calls a sample
    model       the run: its hash, the training step, which average of the parameters
    seed        of the samples
    versions    of the libraries
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffjax.errors import InputError, unknown, writing

PARTS = ("n", "reference", "features", "labels", "sampler", "model", "seed", "versions")


def normal(value: float, error: float) -> dict[str, Any]:
    """A number with an interval that holds 95 % of a normal law of this standard error."""
    value, margin = float(value), 1.96 * float(error)
    return {"value": value, "interval": [value - margin, value + margin], "level": 0.95}


def write_numbers(path: Path, numbers: Mapping[str, Mapping[str, Any]], passport: Mapping[str, Any]) -> None:
    """{"passport": ..., "numbers": {name: {"value", "interval", "level", ...}}}; the file is whole or not there."""
    if set(passport) != set(PARTS):
        raise ValueError(f"a passport has the parts {PARTS}; got {tuple(passport)}")
    draft = path.with_suffix(".tmp")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"passport": passport, "numbers": numbers}, indent=1) + "\n")
        draft.replace(path)


def read_numbers(path: Path) -> dict[str, Any]:
    """What `write_numbers` wrote.  Raises InputError for any other file."""
    try:
        read = json.loads(path.read_text())
        assert set(read) == {"passport", "numbers"} and set(read["passport"]) == set(PARTS)
        assert all({"value", "interval"} <= set(number) for number in read["numbers"].values())
        return read
    except (OSError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(
            f"{path} holds no numbers with a passport ({type(error).__name__}); name a scores.json of evaluate.py"
        ) from error


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{"sampler.steps": (50, 20), ...} of two passports; None stands for what one of them lacks."""
    a, b = dict(flat(first)), dict(flat(second))
    return {name: (a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}


def compare(first: str | Path, second: str | Path, *, vary: Sequence[str] = ()) -> str:
    """Two files of numbers side by side, and what differs between their passports.

    `vary` names the parts that are meant to differ.  Raises InputError if another one does.
    """
    for part in vary:
        if part not in PARTS:
            raise unknown("part of a passport", part, PARTS)
    a, b = (read_numbers(Path(path)) for path in (first, second))
    apart = differences(a["passport"], b["passport"])
    told = [f"{name}: {x} | {y}" for name, (x, y) in apart.items()]
    other = sorted({part for name in apart if (part := name.split(".")[0]) not in vary})
    if other:
        raise InputError(
            f"the passports of {first} and {second} differ ({'; '.join(told)}); measure both alike, or say which parts "
            f"are meant to differ with --vary {','.join(sorted({*other, *vary}))}"
        )
    shared = [name for name in a["numbers"] if name in b["numbers"]]
    if not shared:
        raise InputError(f"{first} and {second} share no metric: {', '.join(a['numbers'])} | {', '.join(b['numbers'])}")
    lines = [_line(name, a["numbers"][name], b["numbers"][name]) for name in shared]
    return "\n".join(["differs  " + line for line in told] + lines)


def _line(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Apart if the difference exceeds what both intervals allow: independent samples, the same reference."""
    gap = b["value"] - a["value"]
    margin = math.hypot(*(half(number) for number in (a, b)))
    verdict = "apart" if abs(gap) > margin else "not told apart"
    return f"{name:18} {a['value']:.6g} | {b['value']:.6g}   difference {gap:+.3g} (margin {margin:.3g}): {verdict}"


def half(number: Mapping[str, Any]) -> float:
    """Half the width of a number's interval."""
    low, high = number["interval"]
    return (high - low) / 2


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dicts as ("sampler.steps", 50), ..."""
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for key, value in tree.items():
        yield from flat(value, f"{prefix}.{key}" if prefix else key)

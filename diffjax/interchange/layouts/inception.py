"""The FID's Inception v3 as pytorch-fid and torch-fidelity publish it: one state dict, by the names of torchvision.

Their counts of batches, which older files do not have, are left aside.
"""

from collections.abc import Mapping
from typing import Any

from ..forms import LINEAR, Kind, conv, flat
from ..rules import Row
from .layout import Arrays, Facts, Layout, Target, view

CONV: Kind = {"kernel": ("weight", conv)}
STATISTICS: Kind = {
    "scale": ("weight", flat), "bias": ("bias", flat), "mean": ("running_mean", flat), "var": ("running_var", flat)
}  # fmt: skip


def rows(target: Target) -> list[Row]:
    return [
        Row(r"stem/(\w+)/conv", "{}.conv", CONV),
        Row(r"stem/(\w+)/norm", "{}.bn", STATISTICS),
        Row(r"mixed/(\w+)/units/(\w+)/conv", "{}.{}.conv", CONV),
        Row(r"mixed/(\w+)/units/(\w+)/norm", "{}.{}.bn", STATISTICS),
        Row("head", "fc", LINEAR),
    ]


def renamed(arrays: Arrays) -> Arrays:
    return view(arrays, {name: name for name in arrays if not name.endswith("num_batches_tracked")})


def facts(said: Mapping[str, Any], arrays: Arrays) -> Facts:
    """Nothing but the number of classes and, of a thinner twin, how thin it is."""
    first, last = arrays.get("Conv2d_1a_3x3.conv.weight"), arrays.get("fc.weight")
    if first is None or last is None or not first.shape[0]:
        return Facts({"name": "inception"})
    return Facts({"name": "inception", "thin": 32 // first.shape[0], "classes": last.shape[0]})


LAYOUT = Layout(rows, nets=("inception",), facts=facts, renamed=renamed)

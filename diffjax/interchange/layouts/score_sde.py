"""NCSN++ and DDPM++ of yang-song/score_sde_pytorch: modules counted in the order in which they are called.

A training checkpoint holds the average as a list in the order of the parameters of `model`, which lend it their names.
The buffer `sigmas` belongs to the process, and is left.
"""

from collections.abc import Iterator
from typing import Any

from diffjax.errors import InputError

from ..forms import CONV, LINEAR, NORM, Form, Kind, flat, joined
from ..rules import Row
from .layout import Arrays, Layout, Target, drawn, listed, modules, view

FOURIER = "all_modules.0.W"
_square = Form(lambda arrays, shape: arrays[0].reshape(shape), lambda a: [a.reshape(a.shape[-2:])])
NIN: Kind = {"kernel": ("W", _square), "bias": ("b", flat)}
QKV: Kind = {"kernel": ("W", joined(_square, 3, 1)), "bias": ("b", joined(flat, 3))}
BLOCK = {
    "norm1": ("GroupNorm_0", NORM), "conv1": ("Conv_0", CONV), "film": ("Dense_0", LINEAR),
    "norm2": ("GroupNorm_1", NORM), "conv2": ("Conv_1", CONV),
}  # fmt: skip
OF_SKIP = {"block": ("Conv_2", CONV), "conv": ("NIN_0", NIN)}  # their blocks of kind "biggan" and "ddpm"
ATTENTION = {
    "norm": (("GroupNorm_0",), NORM), "qkv": (("NIN_0", "NIN_1", "NIN_2"), QKV), "out": (("NIN_3",), NIN)
}  # fmt: skip


def rows(target: Target) -> list[Row]:
    first = 1 if target.net["features"] in ("normal", "listed") else 0
    found = []
    for k, (ours, kind) in enumerate(_walk(target), first):
        theirs = f"all_modules.{k}"
        if kind == "block":
            found += modules(ours, theirs, BLOCK | {"skip": OF_SKIP[target.net["resample"]]})
        elif kind == "attention":
            for name, (there, form) in ATTENTION.items():
                found.append(Row(f"{ours}/{name}", [f"{theirs}.{module}" for module in there], form))
        else:
            found.append(Row(ours, theirs + kind.get("inside", ""), kind["kind"]))
    return found


def _walk(target: Target) -> Iterator[tuple[str, Any]]:
    """Our modules in their order, and what they are."""
    net, levels = target.net, len(target.net["multipliers"])
    has = lambda part: any(leaf.startswith(part + "/") for leaf in target.leaves)  # noqa: E731
    filtered = ".Conv2d_0" if tuple(net["taps"]) != (1, 1) else ".Conv_0"
    resampled = "block" if net["resample"] == "block" else {"kind": CONV, "inside": filtered}
    yield from (("embed/hidden", {"kind": LINEAR}), ("embed/out", {"kind": LINEAR}), ("stem", {"kind": CONV}))
    for i in range(levels):
        for j in range(net["blocks"]):
            yield f"down/{i}/blocks/{j}", "block"
            if has(f"down/{i}/attention/{j}"):
                yield f"down/{i}/attention/{j}", "attention"
        if i < levels - 1:
            yield f"down/{i}/resample", resampled
            if has(f"down/{i}/beside"):
                inside = ".Conv_0" if net["encoder"] == "skip" else filtered
                yield f"down/{i}/beside/conv", {"kind": CONV, "inside": inside}
    yield from (("middle/blocks/0", "block"), ("middle/attention/0", "attention"), ("middle/blocks/1", "block"))
    for i in range(levels):
        yield from ((f"up/{i}/blocks/{j}", "block") for j in range(net["blocks"] + 1))
        if has(f"up/{i}/attention"):
            yield f"up/{i}/attention/0", "attention"
        if has(f"up/{i}/beside"):
            yield from ((f"up/{i}/beside/norm", {"kind": NORM}), (f"up/{i}/beside/conv", {"kind": CONV}))
        if i < levels - 1:
            yield f"up/{i}/resample", resampled
    yield from (("norm", {"kind": NORM}), ("head", {"kind": CONV}))


def renamed(arrays: Arrays) -> Arrays:
    """The average of a training checkpoint, or else its model, by the model's names."""
    root = "model." if any(name.startswith("model.") for name in arrays) else ""
    model = {name[len(root) :].removeprefix("module."): name for name in arrays if name.startswith(root)}
    model = {name: place for name, place in model.items() if name.startswith("all_modules.")}
    averaged = [name for name in arrays if name.startswith("ema.shadow_params.")]
    if averaged:
        trained = [name for name in model if name != FOURIER]
        if len(trained) != len(averaged):
            raise InputError(f"the file averages {len(averaged)} parameters of {len(trained)}; name others with --at")
        model |= zip(trained, averaged, strict=True)
    return view(arrays, model)


LAYOUT = Layout(
    rows, nets=("ddpm", "ddpmpp", "ncsnpp"), renamed=renamed, fixed=lambda target: listed(target, FOURIER),
    facts=lambda said, arrays: drawn(arrays, FOURIER),
)  # fmt: skip

"""Published networks in whose features samples are judged, read from their files (interchange/ knows the layouts).

Nothing is fetched: a file that is missing is named, with the place where it is published and how its SHA-256 begins.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diffjax.diffusion.types import Net
from diffjax.errors import InputError
from diffjax.interchange import containers
from diffjax.interchange.layouts import ENCODERS as LAYOUTS
from diffjax.interchange.layouts import Target, chosen
from diffjax.interchange.rules import imported, pair
from diffjax.nets import ENCODERS, functional
from diffjax.training import named


class Published(NamedTuple):
    """A file, who publishes it, and the beginning of its SHA-256."""

    file: str
    where: str
    sha256: str


PUBLISHED = {
    "inception": (
        Published("pt_inception-2015-12-05-6726825d.pth", "releases of github.com/mseitzer/pytorch-fid", "6726825d"),
        Published(
            "weights-inception-2015-12-05-6726825d.pth", "releases of github.com/toshas/torch-fidelity", "6726825d"
        ),
    ),
    "dinov2": (
        Published("dinov2_vitb14_pretrain.pth", "the README of github.com/facebookresearch/dinov2", "0b8b82f8"),
        Published("dinov2_vitl14_pretrain.pth", "the README of github.com/facebookresearch/dinov2", "d5383ea8"),
    ),
    "clip": (
        Published("model.safetensors", "openai/clip-vit-large-patch14 on the Hugging Face hub", "a2bf730a"),
    ),
}  # fmt: skip


class Encoder(NamedTuple):
    """A network, its parameters on the host, the options that its file says, and its layout."""

    net: Net
    params: Any
    options: Mapping[str, Any]
    layout: str


def located(kind: str, weights: str | Path, folder: Path) -> Path:
    """The file of a published network: `weights`, a file or a folder, or else one of its published name in `folder`.

    Raises InputError, saying where it is to be found, if there is none, or if it is not what was published by its name.
    """
    known = PUBLISHED[kind]
    places = [Path(weights).expanduser()] if weights else [folder / one.file for one in known]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        said = "; ".join(f"{one.file} is in {one.where}, its SHA-256 begins with {one.sha256}" for one in known)
        raise InputError(f"features '{kind}' need weights, and there is no {places[0]}: {said}; name one as weights")
    path = containers.find(path)
    for one in known:
        if path.name == one.file and one.sha256 in path.name and not digest_of(path).startswith(one.sha256):
            raise InputError(
                f"{path} is not what was published: its SHA-256 does not begin with {one.sha256}; see {one.where}"
            )
    return path


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_encoder(path: str | Path, layouts: Sequence[str]) -> Encoder:
    """The network in a file, of the first of these layouts that knows it.

    Raises InputError, naming the tensor, for one that is missing, of another shape, or used for nothing.
    """
    found, said = containers.read(path), containers.facts(path)
    for name in layouts:
        kind = LAYOUTS[name]
        arrays = chosen(kind, found)
        try:
            options = dict(kind.facts(said, arrays).net)
            break
        except InputError:
            if name == layouts[-1]:
                raise
    row, others = options["name"], {key: value for key, value in options.items() if key != "name"}
    net = functional(lambda rngs: ENCODERS[row](rngs=rngs, **others))
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    leaves = {leaf: array.shape for leaf, array in named(shapes).items()}
    ours = imported(pair(kind.rows(Target(leaves, options, (), 0)), leaves), leaves, arrays)
    params = jax.tree.unflatten(jax.tree.structure(shapes), [np.asarray(ours[leaf], np.float32) for leaf in leaves])
    return Encoder(net, params, options, name)


def hash_of(params: Any) -> str:
    """16 hex digits of the SHA-256 of all parameters, their names and shapes."""
    digest = hashlib.sha256()
    for name, leaf in sorted(named(params).items()):
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]

"""A classifier of a data set, trained here on its training split with a fixed seed, for features to judge samples in.

Where there are labels it tells classes apart; where there are none, by how many quarters a picture was turned (Gidaris
et al. 2018).  Same data and recipe, same weights, to the bit, on the same machine; they are kept in a file.
"""

import hashlib
import itertools
import json
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from diffjax import data, evaluation, training
from diffjax.assessment.encoders import hash_of
from diffjax.diffusion.types import Net
from diffjax.errors import InputError, writing
from diffjax.interchange import npz
from diffjax.nets import ENCODERS, functional
from diffjax.training.optimizers import adamw, cosine, warmed

QUARTERS = 4
SHOWN = 256  # examples that stand for the data
# Sums on a GPU in a fixed order.
compiled = partial(jax.jit, compiler_options={"xla_gpu_deterministic_ops": True})


class Recipe(NamedTuple):
    """How it is trained: as often over the data as `epochs`, within so many steps."""

    width: int = 16
    features: int = 64
    epochs: int = 20
    least: int = 300
    most: int = 4000
    batch: int = 128
    rate: float = 2e-3
    decay: float = 1e-2
    seed: int = 0


class Classifier(NamedTuple):
    net: Net
    params: Any
    classes: int  # of the data; 0 if it tells quarters apart
    facts: dict[str, Any]


def classifier(
    source: data.Source, heldout: data.Source | None, pipeline: evaluation.Pipeline, folder: Path,
    recipe: Recipe = Recipe(),  # noqa: B008
) -> Classifier:  # fmt: skip
    """The classifier of a data set, read from `folder`, or trained and written there.

    Its facts: what it tells apart, its accuracy on the held-out data (None without), the recipe.  Raises InputError for
    data without labels whose pictures are not square.
    """
    if not source.classes and pipeline.size[0] != pipeline.size[1]:
        raise InputError(
            f"a classifier needs labels, or square pictures to turn; the data have none and are of shape "
            f"{source.shape}: use features 'pixels'"
        )
    count, target = (source.classes, "classes") if source.classes else (QUARTERS, "rotations")
    shape = (*pipeline.size, pipeline.channels)
    net = functional(
        lambda rngs: ENCODERS["classifier"](shape, count, rngs=rngs, width=recipe.width, features=recipe.features)
    )
    path = folder / f"classifier_{_fingerprint(source, heldout, pipeline, recipe)}.npz"
    found = _read(path, net)
    if found is None:
        params = _trained(net, source, pipeline, recipe)
        accuracy = None if heldout is None else _accuracy(net, params, heldout, pipeline)
        found = params, {"target": target, "accuracy": accuracy, "recipe": recipe._asdict()}
        if jax.process_index() == 0:
            _write(path, *found)
    params, facts = found
    return Classifier(net, params, source.classes, facts)


def turned(x: Float[Array, "B H W C"]) -> tuple[Float[Array, "B H W C"], Int[Array, "B"]]:
    """Rows turned by 0, 1, 2, 3, 0, 1 ... quarters, and by how many."""
    quarters = jnp.arange(len(x)) % QUARTERS
    every = jnp.stack([jnp.rot90(x, k, (1, 2)) for k in range(QUARTERS)])
    return every[quarters, jnp.arange(len(x))], quarters


def _task(pipeline: evaluation.Pipeline, batch: dict[str, Array]) -> tuple[Array, Array]:
    """What the network reads, and what it should say."""
    x = evaluation.prepare(pipeline, batch["x"])
    return (x, batch["label"]) if "label" in batch else turned(x)


def _trained(net: Net, source: data.Source, pipeline: evaluation.Pipeline, recipe: Recipe) -> Any:
    size = min(recipe.batch, source.size)
    steps = int(np.clip(recipe.epochs * source.size // size, recipe.least, recipe.most))
    rate = warmed(recipe.rate, warmup=steps // 20, decay=cosine(steps))
    optimizer = adamw(rate, weight_decay=recipe.decay)

    def loss(params, batch):
        x, label = _task(pipeline, batch)
        logits = net.apply(params, x)[1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    @compiled
    def step(params, state, batch):
        grads = jax.grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = compiled(net.init)(jax.random.key(recipe.seed, impl="rbg"))  # which compiles in a third of the time
    state = optimizer.init(params)
    batches = data.Batches(source, size, recipe.seed, value_range=pipeline.range)
    for batch in itertools.islice(data.stream(batches, 0), steps):
        params, state = step(params, state, batch)
    return jax.device_get(params)


def _accuracy(net: Net, params: Any, heldout: data.Source, pipeline: evaluation.Pipeline) -> float:
    """The part of the held-out examples that it tells right."""

    @compiled
    def right(params, batch):
        x, label = _task(pipeline, batch)
        return jnp.sum((net.apply(params, x)[1].argmax(-1) == label) * batch["mask"])

    batches = data.heldout(heldout, min(500, heldout.size), value_range=pipeline.range)
    return float(sum(float(right(params, batch)) for batch in batches) / heldout.size)


def _fingerprint(source: data.Source, heldout: data.Source | None, *told: Any) -> str:
    """12 hex digits of all that its weights and facts depend on; some examples stand for the data."""
    parts = (source,) if heldout is None else (source, heldout)
    seen = [(part.size, part.shape, part.classes, data.digest(part, SHOWN)) for part in parts]
    return hashlib.sha256(repr((told, jax.__version__, jax.default_backend(), seen)).encode()).hexdigest()[:12]


def _read(path: Path, net: Net) -> tuple[Any, dict[str, Any]] | None:
    """What `_write` wrote; None if it is not there or not whole."""
    try:
        arrays = dict(npz.read(path))
        facts = json.loads(arrays.pop("facts").tobytes())
        shapes = jax.eval_shape(net.init, jax.random.key(0))
        params = jax.tree.unflatten(jax.tree.structure(shapes), [arrays[name] for name in training.named(shapes)])
        return (params, facts["facts"]) if hash_of(params) == facts["hash"] else None
    except (InputError, OSError, KeyError, ValueError):
        return None


def _write(path: Path, params: Any, facts: dict[str, Any]) -> None:
    """All or nothing."""
    said = np.frombuffer(json.dumps({"facts": facts, "hash": hash_of(params)}).encode(), np.uint8)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp.npz")
        np.savez(draft, facts=said, **training.named(params))
        os.replace(draft, path)

"""An experiment as compiled programs on a mesh of devices."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from diffjax import training
from diffjax.errors import InputError
from diffjax.experiment import Experiment
from diffjax.training.cost import flops


def mesh_of(config: Mapping[str, Any]) -> jax.sharding.Mesh:
    """The mesh of a config, over all devices.  Raises InputError if devices or rows do not split as it says."""
    try:
        mesh = training.make_mesh(**config["mesh"])
    except ValueError as error:
        raise InputError(str(error)) from None
    devices, accumulate = training.row_parts(mesh), config["memory"]["accumulate"]
    if config["batch_size"] % (devices * accumulate):
        raise InputError(
            f"batch_size={config['batch_size']} does not split over data x fsdp = {devices} devices and "
            f"memory.accumulate={accumulate} parts; make it a multiple of {devices * accumulate}"
        )
    if config["memory"]["offload"] and not training.has_host_memory(mesh):
        kind = mesh.devices.flat[0].device_kind
        raise InputError(
            f"memory.offload needs devices that reach their host's memory, and {kind} does not; set it to False"
        )
    return mesh


def program(experiment: Experiment, mesh: jax.sharding.Mesh) -> tuple[Callable, Callable, training.State]:
    """(init, steps, abstract state) of an experiment on a mesh."""
    e, parts = experiment, experiment.config["memory"]["accumulate"]
    step = training.make_step(e.draw, e.loss, e.optimizer, e.average, parts=parts, project=e.net.project)
    init = partial(training.initial, e.net.init, e.optimizer, e.average)
    offload = experiment.config["memory"]["offload"]
    return training.compile_step(step, init, mesh, overrides=e.splits, offload=offload)


def abstract_batch(experiment: Experiment, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch's shapes and places."""
    rows, place = experiment.config["batch_size"], training.batch_sharding(mesh)
    shapes = {"x": ((rows, *experiment.source.shape), jnp.float32)}
    if experiment.source.classes:
        shapes["label"] = (rows,), jnp.int32
    return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=place) for name, (shape, dtype) in shapes.items()}


def abstract_call(experiment: Experiment, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Those of the batches of a call."""
    n, place = experiment.config["steps_per_call"], training.stacked_sharding(mesh)
    batch = abstract_batch(experiment, mesh)
    return {name: jax.ShapeDtypeStruct((n, *a.shape), a.dtype, sharding=place) for name, a in batch.items()}


def flops_per_step(experiment: Experiment) -> float:
    """Floating-point operations of the model in a step: products and convolutions forward, and twice that backward.

    What is computed again to save memory is not counted.
    """
    e, batch = experiment, abstract_batch(experiment, training.make_mesh())
    params = jax.eval_shape(e.net.init, jax.random.key(0))
    forward = jax.make_jaxpr(lambda params, key, batch: e.loss(params, e.draw(key, batch)))
    return 3 * flops(forward(params, jax.random.key(0), batch).jaxpr)

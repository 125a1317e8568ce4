"""An experiment as compiled programs on a mesh of devices."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from diffjax import training
from diffjax.errors import InputError
from diffjax.experiment import Experiment


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
    return mesh


def program(experiment: Experiment, mesh: jax.sharding.Mesh) -> tuple[Callable, Callable, training.State]:
    """(init, step, abstract state) of an experiment on a mesh."""
    e, parts = experiment, experiment.config["memory"]["accumulate"]
    step = training.make_step(e.draw, e.loss, e.optimizer, e.average, parts=parts)
    init = partial(training.initial, e.net.init, e.optimizer, e.average)
    return training.compile_step(step, init, mesh, overrides=e.splits)

"""What an experiment is compiled from."""

from collections.abc import Iterator

from jax.extend.core import jaxprs_in_params

from configs import digits
from diffjax.experiment import build
from diffjax.program import abstract_call, mesh_of, program


def convolutions(jaxpr, looped: bool = False) -> Iterator[bool]:
    """For every convolution of a program, whether it is inside of a loop."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield looped
        for inner in jaxprs_in_params(equation.params):
            yield from convolutions(inner, looped or equation.primitive.name in ("scan", "while"))


def test_the_step_of_a_unet_has_no_convolution_in_a_loop():
    """One step a call, in one part: within a loop XLA's convolutions are ten times slower on a CPU."""
    config = digits.get_config().to_dict() | dict(batch_size=8)
    config["net"] = dict(name="unet", width=8, multipliers=(1,), blocks=2, attention=())
    looped = {}
    for n in (1, 2):
        experiment = build(config | dict(steps_per_call=n))
        mesh = mesh_of(experiment.config)
        _, step, target = program(experiment, mesh)
        looped[n] = list(convolutions(step.trace(target, abstract_call(experiment, mesh)).jaxpr.jaxpr))
    assert not any(looped[1]) and all(looped[2]) and len(looped[1]) == len(looped[2]) > 20

"""What an experiment is compiled from."""

from collections.abc import Iterator
from typing import Any

import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

from configs import digits
from diffjax.experiment import build
from diffjax.nets.convolution import convolution_p
from diffjax.program import abstract_call, mesh_of, program

CHANNELS_LAST = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def convolutions(jaxpr, looped: bool = False) -> Iterator[tuple[Any, bool]]:
    """Every convolution of a program, and whether it is inside of a loop."""
    for equation in jaxpr.eqns:
        if equation.primitive in (convolution_p, lax.conv_general_dilated_p):
            yield equation, looped
        for inner in jaxprs_in_params(equation.params):
            yield from convolutions(inner, looped or equation.primitive.name in ("scan", "while"))


@pytest.mark.parametrize("name", ["unet", "ncsnpp", "edm2"])
def test_convolutions_of_a_step_have_their_channels_last(name, devices):
    """Within loops any other form is slow on a CPU, forwards and backwards.

    One step a call, in one part, is no loop, but for kernels' gradients, which on one device are sums over images.
    """
    config = digits.get_config().to_dict() | dict(batch_size=8)
    config["net"] = dict(name=name, width=8, multipliers=(1, 2), blocks=2, attention=())
    found = {}
    for n in (1, 2):
        experiment = build(config | dict(steps_per_call=n))
        mesh = mesh_of(experiment.config)
        _, step, target = program(experiment, mesh)
        found[n] = list(convolutions(step.trace(target, abstract_call(experiment, mesh)).jaxpr.jaxpr))
        ours = sum(equation.primitive is convolution_p for equation, _ in found[n])
        forms = [e.params["dimension_numbers"] for e, _ in found[n] if e.primitive is not convolution_p]
        assert ours > 5 and len(forms) > 10 and set(forms) == {CHANNELS_LAST}
    assert any(looped for _, looped in found[1]) == (devices == 1) and all(looped for _, looped in found[2])
    assert len(found[1]) == len(found[2]) > 20

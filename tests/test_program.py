"""What an experiment is compiled from."""

import pytest
from jax import lax

from configs import digits
from diffjax.experiment import build
from diffjax.nets.convolution import convolution_p
from diffjax.program import abstract_call, mesh_of, program
from diffjax.training.cost import equations

CHANNELS_LAST = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("net", [
    dict(name="unet", width=8, multipliers=(1, 2), blocks=1, attention=()),
    dict(name="ncsnpp", width=8, multipliers=(1, 2), blocks=1, attention=()),
    dict(name="edm2", width=8, multipliers=(1, 2), blocks=1, attention=()),
], ids=lambda net: net["name"])  # fmt: skip
def test_every_convolution_of_a_step_has_its_channels_last(net, n):
    """Forwards and backwards, in a call of one step and of several: any other is slow on a CPU within a loop."""
    experiment = build(digits.get_config().to_dict() | dict(batch_size=8, net=net, steps_per_call=n))
    mesh = mesh_of(experiment.config)
    _, step, target = program(experiment, mesh)
    found = [equation for equation, _ in equations(step.trace(target, abstract_call(experiment, mesh)).jaxpr.jaxpr)]
    ours = sum(equation.primitive is convolution_p for equation in found)
    others = [e.params["dimension_numbers"] for e in found if e.primitive is lax.conv_general_dilated_p]
    assert ours > 5 and len(others) > 10 and set(others) == {CHANNELS_LAST}

"""Networks: Flax lives here and nowhere else.  What leaves this room is `Net(init, apply)`, two pure functions."""

from .functional import functional as functional
from .mlp import mlp
from .unet import unet

NETS = {"unet": unet, "mlp": mlp}

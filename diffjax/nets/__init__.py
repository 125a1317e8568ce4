"""Networks: Flax lives here and nowhere else.  What leaves this room is `Net(init, apply)`, two pure functions."""

from .dit import SHARDING as DIT_SHARDING
from .dit import dit, pixel_transformer
from .functional import functional as functional
from .mlp import mlp
from .unet import SHARDING as UNET_SHARDING
from .unet import unet

NETS = {"unet": unet, "dit": dit, "pixel_transformer": pixel_transformer, "mlp": mlp}
SPLITS = {
    "unet": UNET_SHARDING,
    "dit": DIT_SHARDING,
    "pixel_transformer": DIT_SHARDING,
}  # what of a net is split over the mesh's `tensor`: rows for training/sharding.py

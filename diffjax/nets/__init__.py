"""Networks: Flax lives here and nowhere else.  What leaves this room is `Net(init, apply)`, two pure functions."""

from .functional import functional as functional
from .mlp import mlp
from .unet import SHARDING as UNET_SHARDING
from .unet import adm, ddpm, ddpmpp, ncsnpp, unet

CONVOLUTIONAL = {"unet": unet, "ddpm": ddpm, "adm": adm, "ddpmpp": ddpmpp, "ncsnpp": ncsnpp}
NETS = CONVOLUTIONAL | {"mlp": mlp}
SPLITS = dict.fromkeys(CONVOLUTIONAL, UNET_SHARDING)  # over the mesh's `tensor`: rows for training/sharding.py

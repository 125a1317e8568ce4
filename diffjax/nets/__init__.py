"""Networks: Flax lives here and nowhere else.  What leaves this room is `Net(init, apply)`, two pure functions."""

from .classifier import classifier
from .dit import SHARDING as DIT_SHARDING
from .dit import dit, pixel_transformer
from .edm2 import SHARDING as EDM2_SHARDING
from .edm2 import edm2
from .functional import functional as functional
from .inception import inception
from .mlp import mlp
from .unet import SHARDING as UNET_SHARDING
from .unet import adm, ddpm, ddpmpp, ncsnpp, unet
from .vision_transformer import vision_transformer

CONVOLUTIONAL = {"unet": unet, "ddpm": ddpm, "adm": adm, "ddpmpp": ddpmpp, "ncsnpp": ncsnpp}
TRANSFORMERS = {"dit": dit, "pixel_transformer": pixel_transformer}
NETS = CONVOLUTIONAL | {"edm2": edm2} | TRANSFORMERS | {"mlp": mlp}
# Networks that say what they see: x alone in, features out (diffjax/assessment/features.py).
ENCODERS = {"inception": inception, "vision_transformer": vision_transformer, "classifier": classifier}
# What of a net is split over the mesh's `tensor`: rows for training/sharding.py.
SPLITS = (
    dict.fromkeys(CONVOLUTIONAL, UNET_SHARDING) | {"edm2": EDM2_SHARDING} | dict.fromkeys(TRANSFORMERS, DIT_SHARDING)
)

"""One file for each family of networks, each with its tables of rows (rules.py)."""

from diffjax.errors import unknown

from .diffusers_dit import LAYOUT as DIFFUSERS_DIT
from .diffusers_unet import LAYOUT as DIFFUSERS_UNET
from .dit import LAYOUT as DIT
from .dit import SIT
from .edm import LAYOUT as EDM
from .guided_diffusion import LAYOUT as GUIDED_DIFFUSION
from .inception import LAYOUT as INCEPTION
from .layout import Layout as Layout
from .layout import Target as Target
from .layout import chosen as chosen
from .score_sde import LAYOUT as SCORE_SDE
from .vision import CLIP
from .vision import LAYOUT as DINOV2
from .vision import TRANSFORMERS as TRANSFORMERS_DINOV2

LAYOUTS = {
    "diffusers-unet": DIFFUSERS_UNET,
    "diffusers-dit": DIFFUSERS_DIT,
    "guided-diffusion": GUIDED_DIFFUSION,
    "dit": DIT,
    "sit": SIT,
    "edm": EDM,
    "score-sde": SCORE_SDE,
}
# Of networks that say what they see, of nets.ENCODERS: for features, and no run can be made of them.
ENCODERS = {
    "inception": INCEPTION,
    "dinov2": DINOV2,
    "transformers-dinov2": TRANSFORMERS_DINOV2,
    "transformers-clip": CLIP,
}


def layout(name: str) -> Layout:
    """A row of LAYOUTS.  Raises InputError for a name that is none."""
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    return LAYOUTS[name]

"""Judging and showing: held-out loss, pictures, sample files."""

from .curves import curve as curve
from .heldout import make_evaluate as make_evaluate
from .pictures import picture as picture
from .samples import write as write

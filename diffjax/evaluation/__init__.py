"""Judging and showing: held-out loss, pictures, sample files, what networks of features read."""

from .curves import curve as curve
from .heldout import make_evaluate as make_evaluate
from .pictures import picture as picture
from .pipeline import Pipeline as Pipeline
from .pipeline import checked as checked
from .pipeline import prepare as prepare
from .samples import write as write

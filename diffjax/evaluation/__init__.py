"""Judging and showing: held-out loss, metrics with intervals and passports, figures, pictures, sample files."""

from .heldout import make_evaluate as make_evaluate
from .heldout import make_losses as make_losses
from .jackknife import jackknife as jackknife
from .metrics import METRICS as METRICS
from .pictures import picture as picture
from .pipeline import Pipeline as Pipeline
from .pipeline import checked as checked
from .pipeline import prepare as prepare
from .samples import write as write
from .summary import summarise as summarise

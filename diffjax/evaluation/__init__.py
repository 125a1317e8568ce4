"""Judging and showing: held-out loss, metrics with intervals, pictures, sample files."""

from .bootstrap import interval as interval
from .curves import curve as curve
from .heldout import make_evaluate as make_evaluate
from .metrics import METRICS as METRICS
from .pictures import picture as picture
from .samples import write as write
from .summary import summarise as summarise

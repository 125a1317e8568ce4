"""Judging and showing: held-out loss, numbers with passports, figures, pictures, sample files."""

from .heldout import make_evaluate as make_evaluate
from .heldout import make_losses as make_losses
from .pictures import picture as picture
from .samples import write as write

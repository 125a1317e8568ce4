"""The Inception score: exp of how much a sample says about its class, on average.

    IS = exp E_x KL(p(k|x) | p(k)) = exp( E_x sum_k p log p - sum_k p(k) log p(k) )         Salimans et al. 2016, sec. 4

between 1 and the number of classes, from the sums of p and of p log p.  It grows with the number of samples, for the
p(k) of few of them is close to their own p; by custom it is the mean over ten splits.
"""

import numpy as np
from jaxtyping import Float

from .kernels import Estimate
from .summary import Classes

SPLITS = 10


def score(classes: Classes, count: Float[np.ndarray, "G"], *, splits: int = SPLITS) -> Estimate:
    """The mean over splits, each of one or several groups, and its standard error; `count` rows are in each group.

    A split counts as much as it has rows: without one of its groups it counts less.
    """
    which = np.arange(len(count)) * min(splits, len(count)) // len(count)
    sums = [np.array([part[which == s].sum(0) for s in range(which[-1] + 1)]) for part in (*classes, count)]
    total, information, rows = sums
    marginal = total / rows[:, None]
    entropy = -(marginal * np.log(np.where(marginal > 0, marginal, 1))).sum(1)
    scores = np.exp(information / rows + entropy)
    error = np.std(scores, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.nan
    return Estimate(float(np.average(scores, weights=rows)), float(error))

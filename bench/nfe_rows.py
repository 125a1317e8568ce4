"""What the rows of `nfe` have in common, on whatever side: their law, their budgets, their names."""

from collections import namedtuple
from functools import cache

from diffjax.testbed.worlds import WORLDS

BUDGETS = 5, 8, 10, 20  # network calls
LOWEST = 0.002, 0.01, 0.03, 0.1  # sigma / alpha of the last level above data, where that is the user's choice
# A rule on a grid, within a budget of calls, from level = (alpha, sigma).  run(x, seed) -> (samples, calls made).
Row = namedtuple("Row", "side rule grid budget level run")
world = cache(WORLDS["mixture"])


def named(rule, options):
    return " ".join([rule, *(f"{key}={value}" for key, value in options.items())])

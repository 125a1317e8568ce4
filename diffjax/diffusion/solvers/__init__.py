"""Solvers: how to walk along a grid of times with a denoiser; one file for each idea.

    linear        what nearly all of them are: coefficients of the grid alone, planned once
    first_order   ancestral, DDIM, Euler, reverse diffusion
    multistep     DPM-Solver++ 2M and 3M, UniPC, DEIS, Adams
    pseudo        PLMS and PNDM
    singlestep    Heun, Restart, DPM-Solver 2 and 3, SDE Runge-Kutta
    langevin      predictor-corrector, annealed Langevin dynamics
    adaptive      Runge-Kutta with error control
    tokens        confidence-based unmasking
    inpainting    a solver held to what is known

Each file has its rows in a table; SOLVERS holds those of any Gaussian process, and they are names of this package.
"""

from collections.abc import Callable

from .adaptive import ADAPTIVE
from .first_order import FIRST_ORDER
from .langevin import LANGEVIN
from .linear import draws_noise as draws_noise
from .multistep import MULTISTEP
from .pseudo import PSEUDO
from .singlestep import SINGLESTEP

SOLVERS = FIRST_ORDER | MULTISTEP | PSEUDO | SINGLESTEP | LANGEVIN | ADAPTIVE


def __getattr__(name: str) -> Callable:
    if name in SOLVERS:
        return SOLVERS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""diffjax: functional diffusion models in JAX and Flax.

diffjax.diffusion       the mathematics: schedules, predictions, losses, solvers, guidance, exact worlds
diffjax.nets            networks, as Net(init, apply)
diffjax.data            data sets, as index-addressed sources
diffjax.training        the compiled step, checkpoints, the loop
diffjax.evaluation      held-out loss, pictures
diffjax.experiment      config -> functions
diffjax.runs, .model    a run as a folder: train, load, sample; .record what identifies it, .averages of other lengths
"""

from .averages import sweep as sweep
from .blackbox import replay as replay
from .cluster import clustered as clustered
from .cluster import connect as connect
from .dryrun import dry_run as dry_run
from .dryrun import fit as fit
from .errors import InputError as InputError
from .errors import exit_on_input_error as exit_on_input_error
from .experiment import Experiment as Experiment
from .experiment import build as build
from .export import export_sampler as export_sampler
from .export import open_sampler as open_sampler
from .model import Model as Model
from .model import load as load
from .model import sample_to_folder as sample_to_folder
from .runs import cache_compilations as cache_compilations
from .runs import train as train

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "InputError",
    "Model",
    "build",
    "dry_run",
    "cache_compilations",
    "clustered",
    "connect",
    "exit_on_input_error",
    "export_sampler",
    "fit",
    "load",
    "open_sampler",
    "replay",
    "sample_to_folder",
    "sweep",
    "train",
]

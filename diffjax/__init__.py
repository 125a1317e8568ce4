"""diffjax: functional diffusion models in JAX and Flax.

diffjax.diffusion       the mathematics: schedules, predictions, losses, solvers, guidance, exact worlds
diffjax.nets            networks, as Net(init, apply)
diffjax.data            data sets, as index-addressed sources
diffjax.training        the compiled step, checkpoints, the loop
diffjax.evaluation      metrics, intervals, passports, the planner's search, figures, pictures
diffjax.interchange     other libraries' weights: files, layouts
diffjax.experiment      config -> functions
diffjax.runs, .model    a run as a folder: train, load, sample; .record what identifies it, .averages of other lengths
diffjax.assessment      a run judged: features, scores, copies, likelihoods, plans
diffjax.export          a sampler in one file
diffjax.process         what a command sets first: compiled programs and memory are kept, cores are used
diffjax.transfer        weights of another library as a run, and back; .certificate of parity, .convert the command

Names are imported when they are used, so that `python -m diffjax.convert --help` answers without jax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assessment.copies import find_copies as find_copies
    from .assessment.heldout import likelihood as likelihood
    from .assessment.heldout import noise_levels as noise_levels
    from .assessment.plans import make_plan as make_plan
    from .assessment.plans import obeying as obeying
    from .assessment.scores import score as score
    from .averages import sweep as sweep
    from .blackbox import replay as replay
    from .cluster import clustered as clustered
    from .cluster import connect as connect
    from .dryrun import dry_run as dry_run
    from .dryrun import fit as fit
    from .errors import InputError as InputError
    from .errors import exit_on_input_error as exit_on_input_error
    from .evaluation.passport import compare as compare
    from .experiment import Experiment as Experiment
    from .experiment import build as build
    from .export import export_sampler as export_sampler
    from .export import open_sampler as open_sampler
    from .model import Model as Model
    from .model import load as load
    from .model import sample_to_folder as sample_to_folder
    from .process import cache_compilations as cache_compilations
    from .process import keep_memory as keep_memory
    from .process import prepare as prepare
    from .process import use_cores as use_cores
    from .runs import train as train
    from .transfer import export_weights as export_weights
    from .transfer import import_weights as import_weights

HOMES = {
    "assessment.copies": ("find_copies",),
    "assessment.heldout": ("likelihood", "noise_levels"),
    "assessment.plans": ("make_plan", "obeying"),
    "assessment.scores": ("score",),
    "averages": ("sweep",),
    "blackbox": ("replay",),
    "cluster": ("clustered", "connect"),
    "dryrun": ("dry_run", "fit"),
    "errors": ("InputError", "exit_on_input_error"),
    "evaluation.passport": ("compare",),
    "experiment": ("Experiment", "build"),
    "export": ("export_sampler", "open_sampler"),
    "model": ("Model", "load", "sample_to_folder"),
    "process": ("cache_compilations", "keep_memory", "prepare", "use_cores"),
    "runs": ("train",),
    "transfer": ("export_weights", "import_weights"),
}

__version__ = "0.1.0"
__all__ = [name for names in HOMES.values() for name in names]  # pyright: ignore


def __getattr__(name: str) -> Any:
    for home, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

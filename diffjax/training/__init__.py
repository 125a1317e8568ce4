"""Training: one compiled step over a mesh, its optimizer, its average, its checkpoints and the loop around them."""

from .checkpoints import CheckpointError as CheckpointError
from .checkpoints import open_checkpoints as open_checkpoints
from .fingerprints import named as named
from .inspection import COLUMNS as COLUMNS
from .inspection import make_inspect as make_inspect
from .loop import Actions as Actions
from .loop import Rhythm as Rhythm
from .loop import Watch as Watch
from .loop import fit as fit
from .loop import interruptible as interruptible
from .metrics import Report as Report
from .metrics import WandB as WandB
from .profiling import Profile as Profile
from .sharding import batch_sharding as batch_sharding
from .sharding import has_host_memory as has_host_memory
from .sharding import local_rows as local_rows
from .sharding import make_mesh as make_mesh
from .sharding import replicated as replicated
from .sharding import row_parts as row_parts
from .sharding import spread as spread
from .sharding import to_devices as to_devices
from .sharding import to_host as to_host
from .step import State as State
from .step import compile_step as compile_step
from .step import initial as initial
from .step import make_step as make_step

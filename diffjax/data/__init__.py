"""Data: numpy out, no jax in."""

from .digits import digits
from .folder import folder
from .loader import Batches as Batches
from .loader import heldout as heldout
from .loader import order as order
from .loader import read as read
from .loader import scaled as scaled
from .loader import stream as stream
from .npz import npz
from .records import records
from .records import store as store
from .source import Batch as Batch
from .source import Source as Source
from .source import absent as absent
from .source import describe as describe
from .source import digest as digest
from .tfds import tfds
from .toy import toy

DATASETS = {"digits": digits, "tfds": tfds, "folder": folder, "npz": npz, "records": records, "toy": toy}

"""Data: sources addressed by index, and a loader whose batches are a function of the step.  NumPy out, no JAX in."""

from diffjax.data.digits import digits
from diffjax.data.folder import folder
from diffjax.data.loader import Batch, Batches, heldout, order, stream
from diffjax.data.npz import npz
from diffjax.data.source import Source, describe, from_arrays
from diffjax.data.tfds import tfds
from diffjax.data.toy import LAWS, toy

__all__ = ["DATASETS", "LAWS", "Batch", "Batches", "Source", "describe", "from_arrays", "heldout", "order", "stream"]

# name -> f(split, **settings) -> Source
DATASETS = {"digits": digits, "folder": folder, "npz": npz, "tfds": tfds, "toy": toy}

"""What commands import, imported before they are forked (commands.py); it starts no thread, asks for no device."""

import matplotlib.pyplot
import sklearn.datasets

import diffjax.model
import diffjax.runs

__all__ = ["diffjax", "matplotlib", "sklearn"]

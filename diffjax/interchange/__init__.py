"""Weights from and to other libraries: files as named arrays, and layouts that say which array is which of ours.

No other library is needed to read its files, and nothing in a file is ever run.
"""

from .containers import read as read

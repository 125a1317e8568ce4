"""PyTorch's checkpoints and other pickles, read without torch and without running anything that is in them.

A pickle is a program: it may import any function and call it.  Here a name in it is looked up in a short table of
stand-ins, never imported.  A name of Python's own library that is not in the table is refused; one of any other
library becomes a `Record`, which keeps what it was called with and can do nothing.  Three kinds of file are read:

    zip         data.pkl beside one member for each storage            torch.save since 1.6
    stream      magic, protocol, system, object, keys, storages        torch.save before, and inside plain pickles
    pickle      one object; modules in it are records                  EDM's network snapshots
"""

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diffjax.errors import InputError

from .lazy import Lazy
from .stand_ins import TABLE, Array, Call, Record, Storage, Tensor

MAGIC = 0x1950A86A20F9469CFC6C  # begins a stream of torch before 1.6

RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core": "numpy._core"}
ERRORS = (  # what a pickle that is cut off, or made to, raises from the unpickler and the stand-ins
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError,
    OverflowError, UnicodeDecodeError, struct.error, zipfile.BadZipFile, NotImplementedError, RecursionError,
    MemoryError,
)  # fmt: skip


def read(path: str | Path) -> Lazy:
    """The arrays of a file by their place in it, 'ema.blocks.0.attn.qkv.weight'; a module's are named as torch does.

    Bytes are read when an array is looked at.  Raises InputError for a name that is refused or a file that is damaged.
    """
    path = Path(path)
    found = dict(_arrays(load(path)))

    def content(name):
        try:
            return found[name].array()
        except ERRORS as error:
            raise InputError(f"'{name}' of {path} is damaged: {error}; fetch it again") from None

    return Lazy(tuple(found), content)


def load(path: str | Path) -> Any:
    """The object in a file, made of dicts, lists, numbers, `Tensor`, `Array` and `Record`.  Raises InputError."""
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            return _of_zip(path)
        with path.open("rb") as file:
            return _of_stream(file)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except ERRORS as error:
        cause = str(error) or type(error).__name__
        raise InputError(f"{path} is no checkpoint that can be read: {cause}; fetch it again") from None


class _Inert(pickle.Unpickler):
    """An unpickler to which no name means what it says."""

    def __init__(self, file, storage: Callable | None = None):
        super().__init__(file, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        for old, new in RENAMED.items():
            module = new + module[len(old) :] if module == old or module.startswith(old + ".") else module
        row = KNOWN.get(f"{module}.{name}")
        if row is not None:
            return row
        if module.split(".")[0] in sys.stdlib_module_names:
            raise InputError(f"it asks for {module}.{name}, which no weights need; do not trust this file")
        if module.startswith("torch") and (name.endswith("Storage") or name.startswith("_rebuild")):
            raise InputError(f"its tensors are made by {module}.{name}, which is not read; save it as safetensors")
        return type(name, (Record,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None or pid[0] != "storage":
            raise InputError(f"it refers to {pid!r}, which is not in it")
        return self._storage(*pid[1:])


def _of_zip(path: Path) -> Any:
    archive = zipfile.ZipFile(path)  # open as long as an array may be looked at: it closes when the last is forgotten
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise InputError("it is a zip without data.pkl; torch.save writes one, TorchScript archives are not read")
    if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
        raise InputError("it was saved on a big-endian machine; save it again as safetensors")

    def storage(dtype, key, _place, size):
        return Storage(dtype, size, lambda: archive.read(names[f"data/{key}"]))  # checks the member's CRC

    return _Inert(io.BytesIO(archive.read(names["data.pkl"])), storage).load()


def _of_stream(file) -> Any:
    """One pickle, or the torch of old: several, and after them the storages' bytes."""
    first = _Inert(file).load()
    if first != MAGIC:
        return first
    for _ in ("protocol", "system"):
        _Inert(file).load()
    storages: dict[str, Storage] = {}

    def storage(dtype, key, _place, size, view=None):
        if view is not None:
            raise InputError("it holds views of storages, of torch before 0.4; save it again as safetensors")
        return storages.setdefault(key, Storage(dtype, size))

    found = _Inert(file, storage).load()
    for key in _Inert(file).load():
        one = storages[key]
        (size,) = struct.unpack("<q", file.read(8))
        content = file.read(size * one.dtype.itemsize)
        one.content = lambda content=content: content
    return found


def _of_bytes(content: bytes) -> Any:
    return _of_stream(io.BytesIO(content))


KNOWN = TABLE | {"torch.storage._load_from_bytes": Call(_of_bytes)}  # a storage inside a plain pickle is a stream


def _arrays(tree: Any, prefix: str = "", inside: tuple[int, ...] = ()) -> Iterator[tuple[str, Tensor | Array]]:
    """The leaves that are arrays; those of a module by their names in it."""
    if isinstance(tree, Tensor | Array):
        yield prefix, tree
    if id(tree) in inside:
        return
    if isinstance(tree, Record):
        tree = tree.attributes()
        groups = [tree.get(name) for name in ("_parameters", "_buffers", "_modules")]
        if any(groups):  # a module: what else it knows is no weight
            tree = {name: value for group in groups if isinstance(group, dict) for name, value in group.items()}
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for name, value in children:
        if isinstance(name, str | int):
            yield from _arrays(value, f"{prefix}.{name}" if prefix else str(name), (*inside, id(tree)))

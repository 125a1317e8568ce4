"""Flax's msgpack files, in which diffusers kept its Flax weights: nested maps whose leaves are arrays.

    ext 1   an array: (shape, name of the dtype, bytes), itself packed          ext 3   a scalar, likewise
    {"__msgpack_chunked_array__": True, "shape": {"0": n, ...}, "chunks": {"0": array, ...}}   one of above a gigabyte

Source: flax.serialization.  Only these are decoded, so nothing in a file can run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

from diffjax.errors import InputError

ARRAY, SCALAR = 1, 3
CHUNKED = "__msgpack_chunked_array__"
EXTRA = {name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}
PLAIN = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64",
)  # fmt: skip
DTYPES = EXTRA | {name: np.dtype(name) for name in PLAIN}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The leaves by their path, 'down_blocks_0/resnets_0/conv1/kernel'.  Raises InputError for any other content."""
    try:
        tree = msgpack.unpackb(Path(path).read_bytes(), ext_hook=_decoded, raw=False, strict_map_key=False)
        if not isinstance(tree, dict):
            raise ValueError(f"it holds a {type(tree).__name__}, not a dict")
        return dict(_leaves(tree))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        cause = str(error) or type(error).__name__
        raise InputError(f"{path} is not Flax's msgpack of arrays: {cause}; fetch it again") from None


def _decoded(code: int, data: bytes) -> Any:
    if code not in (ARRAY, SCALAR):
        raise ValueError(f"it has an extension of type {code}; known: {ARRAY} (array), {SCALAR} (scalar)")
    shape, dtype, content = msgpack.unpackb(data, raw=True)
    if dtype.decode() not in DTYPES:
        raise ValueError(f"it has an array of dtype {dtype.decode()!r}; known: {', '.join(DTYPES)}")
    return np.frombuffer(content, DTYPES[dtype.decode()]).reshape(shape)


def _leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if CHUNKED in tree:
        shape, chunks = (list(tree[key].values()) for key in ("shape", "chunks"))
        yield prefix, np.concatenate([chunk.reshape(-1) for chunk in chunks]).reshape(shape)
        return
    for key, value in tree.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, dict):
            yield from _leaves(value, name)
        elif isinstance(value, np.ndarray):
            yield name, value
        elif value is not None:
            raise ValueError(f"'{name}' is a {type(value).__name__}, not an array")

"""The safetensors format: named arrays in one file, or in several with an index; nothing in it can run.

    u64 little-endian n | n bytes of JSON: {name: {dtype, shape, data_offsets: [begin, end]}, ...} | the arrays' bytes

Source: the format's page at huggingface.co/docs/safetensors.  The arrays tile the rest of the file without gap or
overlap, and that is checked before any is believed.  Files are mapped, so that what is not looked at is not read.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from diffjax.errors import InputError

# In the order in which the reference writer sorts: files written here equal its own, byte for byte.
DTYPES: dict[str, Any] = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E8M0": ml_dtypes.float8_e8m0fnu, "I16": np.int16, "U16": np.uint16,
    "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I32": np.int32, "U32": np.uint32, "F32": np.float32,
    "C64": np.complex64, "F64": np.float64, "I64": np.int64, "U64": np.uint64,
}  # fmt: skip
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
LONGEST = 100_000_000  # bytes of a header: the reference reader's own limit


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file, mapped from it.  Raises InputError, naming the tensor, if the file is not what it says."""
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST):
            raise _broken(path, f"its header should have {length} bytes and the file has {size}")
        header = _header(path, file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if size > 8 + length else np.zeros(0, np.uint8)
    spans = {name: _span(path, name, entry) for name, entry in header.items()}
    reached = 0
    for (begin, end), name in sorted((span, name) for name, span in spans.items()):
        if begin < reached:
            raise _broken(
                path, f"'{name}' begins at byte {begin}, inside the tensor before it, which ends at {reached}"
            )
        if begin > reached:
            raise _broken(path, f"'{name}' begins at byte {begin}, and bytes from {reached} on belong to nothing")
        reached = end
        if end > data.size:
            raise _broken(path, f"'{name}' ends at byte {end} of {data.size}")
    if reached != data.size:
        raise _broken(path, f"{data.size - reached} bytes after the last tensor belong to nothing")
    return {
        name: data[begin:end].view(DTYPES[header[name]["dtype"]]).reshape(header[name]["shape"])
        for name, (begin, end) in spans.items()
    }


def read_sharded(index: str | Path) -> dict[str, np.ndarray]:
    """The arrays of the files that an index.json beside them names.  Raises InputError if they and it disagree."""
    index = Path(index)
    try:
        places = dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index} is no index of safetensors files: it needs a dict 'weight_map' ({error})") from None
    arrays = {}
    for shard in dict.fromkeys(places.values()):
        if not isinstance(shard, str) or Path(shard).name != shard or not (index.parent / shard).is_file():
            raise InputError(f"{index} names {shard!r}, which is no file beside it; fetch all of the model's files")
        for name, array in read(index.parent / shard).items():
            if places.get(name) != shard:
                raise _broken(index, f"'{name}' is in {shard}, and should be in {places.get(name, 'no file')}")
            arrays[name] = array
    for name, shard in places.items():
        if name not in arrays:
            raise _broken(index, f"'{name}' should be in {shard} and is not")
    return arrays


def write(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """The arrays as a file.  Raises InputError for a dtype that the format does not have."""
    order = list(DTYPES)
    for name, array in arrays.items():
        if array.dtype not in CODES:
            raise InputError(f"safetensors has no dtype for '{name}', {array.dtype}; known: {', '.join(order)}")
    names = sorted(arrays, key=lambda name: (-order.index(CODES[arrays[name].dtype]), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    reached = 0
    for name in names:
        array, begin = arrays[name], reached
        reached += array.nbytes
        code = CODES[array.dtype]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, reached]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)


def _header(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs):
        seen = dict(pairs)
        for name, _ in pairs if len(seen) < len(pairs) else ():
            if [other for other, _ in pairs].count(name) > 1:
                raise _broken(path, f"'{name}' is there twice")
        return seen

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except InputError:
        raise
    except ValueError as error:
        raise _broken(path, f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a dict of tensors")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """(begin, end) of a tensor, whose size agrees with its dtype and shape."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sound = all(isinstance(number, int) and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        sound, dtype, shape, begin, end = False, None, [], 0, 0
    if not sound:
        raise _broken(path, f"'{name}' needs a dtype, a shape and two data_offsets; its entry is {entry!r}")
    if dtype not in DTYPES:
        raise _broken(path, f"'{name}' is of dtype {dtype!r}; known: {', '.join(DTYPES)}")
    expected = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if end - begin != expected:
        raise _broken(path, f"'{name}', {dtype}{shape}, takes {expected} bytes and is given {end - begin}")
    return begin, end


def _broken(path: Path, what: str) -> InputError:
    return InputError(f"{path} is damaged: {what}; fetch it again")

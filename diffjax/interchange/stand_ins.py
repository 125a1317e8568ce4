"""What the names in a pickle of weights stand for here: a closed table of constructors that build data alone.

Each takes the arguments that torch and numpy write, checks them, and refers to bytes that are read later.
"""

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np


class Sealed:
    """What a pickle may not change: its BUILD would otherwise write into objects that later files share."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"it writes into a {type(self).__name__}")


class Call(Sealed):
    """A function of this table.  Being no class and no plain function, it can be called and nothing else."""

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class Record:
    """An object of a class that is not here: `origin` its name, `args` and `state` what it was made with."""

    origin = ""
    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __new__(cls, *args: Any, **kwargs: Any):
        self = super().__new__(cls)
        self.args, self.state, self.items = (*args, *kwargs.values()), None, {}
        return self

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        self.items[len(self.items)] = value

    def extend(self, values: Any) -> None:
        for value in values:
            self.append(value)

    def attributes(self) -> dict[Any, Any]:
        """Its state and items; those of the object that its one argument describes, as EDM's snapshots do."""
        described = self.args[0] if len(self.args) == 1 else None
        described = described.attributes() if isinstance(described, Record) else described
        inner = described["state"] if isinstance(described, dict) and "state" in described else None
        state = next((s for s in (inner, self.state) if isinstance(s, dict)), {})
        return {**state, **self.items}


class Storage(Sealed):
    """A run of numbers, whose bytes come later."""

    def __init__(self, dtype: Any, size: int, content: Callable[[], bytes] | None = None):
        if not isinstance(dtype, Kind) or not isinstance(size, int) or size < 0:
            raise ValueError(f"a storage needs a dtype and a size; it has {dtype!r} and {size!r}")
        self.dtype, self.size, self.content = dtype.dtype, size, content

    def array(self) -> np.ndarray:
        data = self.content() if self.content else b""
        if len(data) != self.size * self.dtype.itemsize:
            raise ValueError(f"a storage of {self.size} {self.dtype} has {len(data)} bytes")
        return np.frombuffer(data, self.dtype)


class Kind(Sealed):
    """A dtype, as torch names it."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)


class Tensor(Sealed):
    """A view of a storage."""

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any):
        numbers = (offset, *shape, *stride)
        if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"a tensor needs a storage, a shape and strides; it has {shape!r} and {stride!r}")
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if math.prod(shape) and last >= storage.size:
            raise ValueError(f"a tensor of shape {list(shape)} reaches beyond its storage of {storage.size}")
        self.storage, self.offset, self.shape, self.stride = storage, offset, tuple(shape), stride

    def array(self) -> np.ndarray:
        flat = self.storage.array()
        if not math.prod(self.shape):
            return np.zeros(self.shape, flat.dtype)
        steps = [s * flat.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps, writeable=False)


class Dtype:
    """A numpy dtype."""

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str):
            raise ValueError(f"it has a dtype {code!r}, not the code of one")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """A numpy array or scalar."""

    def __init__(self, dtype: Any = None, data: Any = b""):
        self.state = ((), dtype, False, data)

    def __setstate__(self, state: Any) -> None:
        _, *self.state = state

    def array(self) -> np.ndarray:
        shape, dtype, fortran, data = self.state
        data = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


class Dict(dict):
    """An ordered or defaulting dict, without its default and its attributes."""

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(storage, offset, shape, stride, *_):
    return Tensor(storage, offset, shape, stride)


def _parameter(data, *_):
    return data


def _instance(cls, *_):
    if not (isinstance(cls, type) and issubclass(cls, Record)):
        raise ValueError(f"it makes an instance of {cls!r}")
    return cls()


def _empty_array(*_):
    return Array()


def _array(data, dtype, shape, order):
    array = Array()
    array.state = (shape, dtype, order == "F", data)
    return array


def _encoded(text, *_):
    return str(text).encode("latin1")


def _empty_dict(*_):
    return Dict()


def _joined(*args):
    return ":".join(map(str, args))


STORAGES = {
    "Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16, "Long": np.int64,
    "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
}  # fmt: skip
TORCH = {
    "float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
    "int64": np.int64, "int32": np.int32, "int16": np.int16, "int8": np.int8, "uint8": np.uint8, "bool": np.bool_,
}  # fmt: skip
BUILTINS = (set, frozenset, list, dict, tuple, slice, complex, bytearray, int, float, bool, str, object)
NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace", "pathlib.PosixPath", "pathlib.PurePosixPath")
FUNCTIONS = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": tuple,
    "torch.device": _joined,
    "collections.OrderedDict": Dict,
    "collections.defaultdict": _empty_dict,
    "copyreg._reconstructor": _instance,
    "numpy.dtype": Dtype,
    "numpy.ndarray": Array,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray.scalar": Array,
    "numpy._core.numeric._frombuffer": _array,
    "_codecs.encode": _encoded,
} | {f"builtins.{row.__name__}": row for row in BUILTINS}

TABLE: dict[str, Any] = (
    {name: Call(function) for name, function in FUNCTIONS.items()}
    | {f"torch.{name}Storage": Kind(dtype) for name, dtype in STORAGES.items()}
    | {f"torch.{name}": Kind(dtype) for name, dtype in TORCH.items()}
    | {name: type(name.split(".")[1], (Record,), {"origin": name}) for name in NAMESPACES}
)

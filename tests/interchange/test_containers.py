"""Files made by hand, good and damaged; what other libraries write is read in tests/parity/test_convert.py."""

import json

import ml_dtypes
import msgpack as packing
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.interchange import containers, msgpack, npz, safetensors

DRAW = np.random.default_rng(0)
ARRAYS = {
    f"{code}.x": (DRAW.standard_normal((2, 3)) * 4).astype(dtype)
    for code, dtype in safetensors.DTYPES.items()
    if code not in ("BOOL", "C64", "F8_E8M0")
} | {"empty": np.zeros((0, 3), np.float32), "scalar": np.float32(2.5).reshape(()), "mask": np.array([True, False])}


def same(left, right):
    assert dict(left).keys() == right.keys()
    for name, array in right.items():
        assert left[name].dtype == array.dtype and left[name].shape == array.shape, name
        assert left[name].tobytes() == array.tobytes(), name


def test_safetensors_returns_what_was_written(tmp_path):
    safetensors.write(tmp_path / "a.safetensors", ARRAYS, {"format": "pt"})
    same(safetensors.read(tmp_path / "a.safetensors"), ARRAYS)


def handmade(path, header, data=bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin, end, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


DAMAGED = {
    "overlap": ({"a": entry(0, 8, shape=(2,)), "b": entry(4, 8)}, "'b' begins at byte 4, inside"),
    "gap": ({"b": entry(4, 8)}, "'b' begins at byte 4, and bytes from 0"),
    "rest": ({"a": entry(0, 4)}, "4 bytes after the last"),
    "cut": ({"a": entry(0, 12, shape=(3,))}, "'a' ends at byte 12 of 8"),
    "size": ({"a": entry(0, 8)}, "'a', F32[1], takes 4 bytes and is given 8"),
    "dtype": ({"a": entry(0, 8, "F31")}, "'a' is of dtype 'F31'"),
    "negative": ({"a": entry(-8, 0)}, "'a' needs a dtype"),
    "entry": ({"a": 3}, "'a' needs a dtype"),
    "twice": (b'{"a": 1, "a": 2}', "'a' is there twice"),
    "no json": (b"{", "not JSON"),
    "list": (b"[]", "not a dict"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_safetensors_names_what_is_damaged(tmp_path, case):
    header, says = DAMAGED[case]
    with pytest.raises(InputError, match="damaged") as caught:
        safetensors.read(handmade(tmp_path / "a.safetensors", header))
    assert says in str(caught.value)


def test_every_truncation_of_safetensors_is_refused(tmp_path):
    safetensors.write(tmp_path / "a.safetensors", {"a": np.ones(3, np.float32)})
    whole = (tmp_path / "a.safetensors").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut.safetensors").write_bytes(whole[:size])
        with pytest.raises(InputError):
            safetensors.read(tmp_path / "cut.safetensors")


def sharded(folder, places):
    names = list(ARRAYS)
    for i in range(2):
        safetensors.write(folder / f"{i}.safetensors", {name: ARRAYS[name] for name in names[i::2]})
    index = folder / "x.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places(names)}))
    return index


def test_shards_are_joined(tmp_path):
    sharded(tmp_path, lambda names: {name: f"{i % 2}.safetensors" for i, name in enumerate(names)})
    same(containers.read(tmp_path), ARRAYS)


@pytest.mark.parametrize(
    "places, says",
    [
        (lambda names: {name: "0.safetensors" for name in names}, "should be in 0.safetensors and is not"),
        (lambda names: {name: "../0.safetensors" for name in names}, "no file beside it"),
        (lambda names: {names[0]: "0.safetensors"}, "and should be in no file"),
    ],
)
def test_an_index_that_disagrees_is_refused(tmp_path, places, says):
    with pytest.raises(InputError, match=says):
        safetensors.read_sharded(sharded(tmp_path, places))


def test_npz_is_read_and_objects_are_not(tmp_path):
    arrays = {"a/b": np.ones((2, 3)), "c": np.arange(3)}
    np.savez(tmp_path / "a.npz", **arrays)
    same(containers.read(tmp_path / "a.npz"), arrays)
    np.savez(tmp_path / "b.npz", a=np.array([{}], object))
    with pytest.raises(InputError, match="'a' of it is no plain array"):
        npz.read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", a=np.ones(2, ml_dtypes.bfloat16))
    with pytest.raises(InputError, match="'a' of .* raw bytes"):
        npz.read(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        npz.read(tmp_path / "d.npz")


def packed(array, code=msgpack.ARRAY):
    content = packing.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
    return packing.ExtType(code, content)


def test_msgpack_is_read_in_chunks_too(tmp_path):
    whole, half = np.arange(6.0).reshape(2, 3), np.ones((2,), ml_dtypes.bfloat16)
    pieces = {str(i): packed(piece) for i, piece in enumerate(np.split(whole.ravel(), 3))}
    chunked = {msgpack.CHUNKED: True, "shape": {"0": 2, "1": 3}, "chunks": pieces}
    tree = {"a": {"kernel": packed(half), "list_0": chunked}, "n": packed(np.float32(3), msgpack.SCALAR)}
    (tmp_path / "a.msgpack").write_bytes(packing.packb(tree))
    same(msgpack.read(tmp_path / "a.msgpack"), {"a/kernel": half, "a/list_0": whole, "n": np.array(3, np.float32)})


@pytest.mark.parametrize(
    "tree, says",
    [
        ({"a": 3}, "'a' is a int"),
        ([1], "a list"),
        ({"a": packing.ExtType(7, b"")}, "extension of type 7"),
        ({"a": packed(np.array(["x"]))}, "dtype 'str"),
    ],
)
def test_msgpack_refuses_what_is_no_array(tmp_path, tree, says):
    (tmp_path / "a.msgpack").write_bytes(packing.packb(tree))
    with pytest.raises(InputError, match=says):
        msgpack.read(tmp_path / "a.msgpack")
    (tmp_path / "a.msgpack").write_bytes(packing.packb({"a": packed(np.ones(9))})[:-3])
    with pytest.raises(InputError, match="not Flax's msgpack"):
        msgpack.read(tmp_path / "a.msgpack")


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="known endings: .safetensors.index.json"):
        containers.read(tmp_path)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(InputError, match="a.h5 has no ending"):
        containers.read(tmp_path / "a.h5")
    for name in "ab":
        safetensors.write(tmp_path / f"{name}.safetensors", ARRAYS)
    with pytest.raises(InputError, match="several files of weights .a.safetensors, b.safetensors"):
        containers.read(tmp_path)

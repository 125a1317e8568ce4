"""Pickles assembled by hand, as torch writes them and as an attacker would: nothing in them runs."""

import argparse
import collections
import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from diffjax.errors import InputError
from diffjax.interchange import pickles, stand_ins

GRID = np.arange(6, dtype=np.float32).reshape(2, 3)


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def number(*values):
    return b"".join(f"I{value}\n".encode() for value in values)


def text(value):
    return f"V{value}\n".encode()


def group(*parts):
    return b"(" + b"".join(parts) + b"t"


def storage(size, kind="Float"):
    where = group(text("storage"), name("torch", f"{kind}Storage"), text("0"), text("cpu"), number(size))
    return where + b"Q"


def tensor(held, shape, stride, offset=0):
    shape, stride = (group(number(*values)) for values in (shape, stride))
    rest = group(held, number(offset), shape, stride, b"I00\n", name("collections", "OrderedDict") + b")R")
    return name("torch._utils", "_rebuild_tensor_v2") + rest + b"R"


def zipped(path, program, content=None, **more):
    with zipfile.ZipFile(path, "w") as archive:
        members = {"data.pkl": program, "data/0": content or GRID.tobytes(), "version": b"3\n"} | more
        for member, data in members.items():
            archive.writestr(f"archive/{member}", data)
    return path


def state(held):
    """{"w": held}, in an ordered dict."""
    return name("collections", "OrderedDict") + b")R" + text("w") + held + b"s."


def test_a_zip_of_torch_is_read(tmp_path):
    found = pickles.read(zipped(tmp_path / "a.pt", state(tensor(storage(6), (3, 2), (1, 3)))))
    assert list(found) == ["w"] and len(found) == 1
    np.testing.assert_array_equal(found["w"], GRID.T)
    with pytest.raises(KeyError):
        found["v"]


def test_a_slice_and_a_half_are_read(tmp_path):
    half = GRID.astype(ml_dtypes.bfloat16)
    program = state(tensor(storage(6, "BFloat16"), (2,), (1,), offset=3))
    found = pickles.read(zipped(tmp_path / "a.pt", program, half.tobytes()))
    assert found["w"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found["w"], half[1, :2])


def legacy(program):
    stream = b"".join(pickle.dumps(part, 2) for part in (pickles.MAGIC, 1001, {"little_endian": True}))
    return stream + program + pickle.dumps(["0"], 2) + struct.pack("<q", 6) + GRID.tobytes()


def old(held):
    """As `storage`, with the view that torch wrote then: none."""
    return held.replace(b"tQ", b"NtQ", 1)


def test_the_format_before_zip_is_read(tmp_path):
    (tmp_path / "a.pth").write_bytes(legacy(state(tensor(old(storage(6)), (2, 3), (3, 1)))))
    np.testing.assert_array_equal(pickles.read(tmp_path / "a.pth")["w"], GRID)


def test_a_module_in_a_plain_pickle_is_a_record(tmp_path):
    """As torch pickles a parameter of a module; the storage is a stream of its own inside."""
    inner = legacy(old(storage(6)) + b".")
    held = name("torch.storage", "_load_from_bytes") + b"(" + b"B" + struct.pack("<i", len(inner)) + inner + b"tR"
    parameter = name("torch._utils", "_rebuild_parameter") + group(tensor(held, (2, 3), (3, 1)), b"I01\n", b"}") + b"R"
    layer = b"}" + text("_parameters") + b"}" + text("weight") + parameter + b"ss"
    layer = name("torch.nn", "Linear") + b")\x81" + layer + b"b"
    model = b"}" + text("_modules") + b"}" + text("0") + layer + b"ss" + text("width") + number(8) + b"s"
    model = name("my.networks", "Net") + b")\x81" + model + b"b"
    (tmp_path / "a.pkl").write_bytes(b"}" + text("ema") + model + b"s.")
    np.testing.assert_array_equal(pickles.read(tmp_path / "a.pkl")["ema.0.weight"], GRID)
    assert pickles.load(tmp_path / "a.pkl")["ema"].attributes()["width"] == 8
    assert pickles.load(tmp_path / "a.pkl")["ema"].origin == "my.networks.Net"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numpy_and_records_are_read(tmp_path, protocol):
    tree = {
        "a": GRID,
        "f": np.asfortranarray(GRID),
        "big": GRID.astype(">f4"),
        "n": np.float64(2.5),
        "args": argparse.Namespace(width=4),
        "d": collections.defaultdict(list, x=[GRID]),
        "s": {1, 2},
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(tree, protocol))
    found = pickles.read(tmp_path / "a.pkl")
    assert set(found) == {"a", "f", "big", "n", "d.x.0"}
    for key in found:
        np.testing.assert_array_equal(found[key], 2.5 if key == "n" else GRID)
    assert pickles.load(tmp_path / "a.pkl")["args"].attributes() == {"width": 4}


class Reduces:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Pickles that would make the file `marker`, were anything in them run."""
    touch = f"open({str(marker)!r}, 'w')"
    yield "system", pickle.dumps(Reduces(__import__("os").system, (f"touch {marker}",)))
    yield "eval", pickle.dumps(Reduces(eval, (touch,)))
    yield "open", pickle.dumps(Reduces(open, (str(marker), "w")))
    yield "open, of python 2", name("__builtin__", "open") + group(text(marker), text("w")) + b"R."
    yield "getattr", pickle.dumps(Reduces(getattr, (marker, "touch")))
    yield "attribute of an attribute", pickle.dumps(Reduces(pickle.Unpickler.load, (io.BytesIO(),)))
    yield "instance", b"(" + text(f"touch {marker}") + b"ios\nsystem\n."
    yield (
        "deep name",
        b"\x80\x04"
        + text("torch")
        + text("serialization.os.system")
        + b"\x93"
        + group(text(f"touch {marker}"))
        + b"R.",
    )
    yield "unknown function", name("subprocess_like", "run") + group(text(f"touch {marker}")) + b"R."
    yield "runs in numpy", name("numpy", "load") + group(text(marker)) + b"R."
    yield "inside a storage", name("torch.storage", "_load_from_bytes") + group(b"B" + struct.pack("<i", 0)) + b"R."


@pytest.mark.parametrize("protocol", ["pickle", "zip"])
def test_nothing_runs(tmp_path, protocol):
    marker, harmless, refused = tmp_path / "marker", [], []
    for case, program in attacks(marker):
        path = tmp_path / "a.pkl"
        path.write_bytes(program) if protocol == "pickle" else zipped(path, program)
        try:
            assert not dict(pickles.read(path)), case
            harmless.append(case)
        except InputError:
            refused.append(case)
        assert not marker.exists(), case
    assert harmless == ["deep name", "unknown function", "runs in numpy"]
    pickle.loads(dict(attacks(marker))["eval"]).close()
    assert marker.exists()  # the same bytes, in the real unpickler


def test_what_is_refused_is_named(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Reduces(eval, ("1",))))
    with pytest.raises(InputError, match="builtins.eval, which no weights need"):
        pickles.read(tmp_path / "a.pkl")


@pytest.mark.parametrize("target", [name("torch", "float32"), name("torch._utils", "_rebuild_tensor_v2")])
@pytest.mark.parametrize("change", [b"}" + text("dtype") + number(1) + b"s", group(b"N", b"}" + text("x") + b"Ns")])
def test_no_file_changes_the_table(tmp_path, target, change):
    before = {key: dict(vars(row)) for key, row in stand_ins.TABLE.items() if isinstance(row, stand_ins.Sealed)}
    (tmp_path / "a.pkl").write_bytes(target + change + b"b.")
    with pytest.raises(InputError, match="it writes into a"):
        pickles.read(tmp_path / "a.pkl")
    assert before == {key: dict(vars(stand_ins.TABLE[key])) for key in before}


BAD = {
    "beyond": (tensor(storage(6), (2, 4), (3, 1)), {}, "reaches beyond its storage of 6"),
    "negative": (tensor(storage(6), (2,), (1,), offset=-1), {}, "needs a storage"),
    "no storage": (tensor(number(3), (2,), (1,)), {}, "needs a storage"),
    "short": (tensor(storage(6), (2,), (1,)), {"data/0": b"1234"}, "'w' of .* a storage of 6 float32 has 4 bytes"),
    "big end": (tensor(storage(6), (2,), (1,)), {"byteorder": b"big"}, "big-endian"),
    "kind": (tensor(storage(6, "QInt8"), (2,), (1,)), {}, "QInt8Storage, which is not read"),
}


@pytest.mark.parametrize("case", BAD)
def test_damage_is_named(tmp_path, case):
    held, more, says = BAD[case]
    with pytest.raises(InputError, match=says):
        _ = pickles.read(zipped(tmp_path / "a.pt", state(held), **more))["w"]


def test_flipped_bytes_and_cut_files_are_refused(tmp_path):
    path = zipped(tmp_path / "a.pt", state(tensor(storage(6), (2, 3), (3, 1))))
    whole = path.read_bytes()
    place = whole.index(GRID.tobytes()) + 8
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(InputError, match="'w' of .* is damaged: Bad CRC"):
        _ = pickles.read(path)["w"]
    stream = legacy(state(tensor(old(storage(6)), (2, 3), (3, 1))))
    for size in range(0, len(stream), 7):
        path.write_bytes(stream[:size])
        with pytest.raises(InputError):
            assert dict(pickles.read(path)) is None

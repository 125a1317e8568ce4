"""Files of weights that torch, safetensors and flax wrote, read without them."""

import argparse
import pickle

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from flax import serialization

from diffjax.interchange import msgpack, pickles
from diffjax.interchange import safetensors as ours

KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


def state():
    """Every dtype; a transposed view, a shared storage, an empty one."""
    draw = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    tensors = {f"{kind}".replace("torch.", "kind."): (draw * 9).to(kind) for kind in KINDS}
    return tensors | {"view": draw.T, "tail": draw[2:], "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0)}


def same(found, tensors):
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        bf16 = tensor.dtype == torch.bfloat16
        want = tensor.float().numpy().astype(ml_dtypes.bfloat16) if bf16 else tensor.numpy()
        assert found[name].dtype == want.dtype and found[name].shape == want.shape, name
        assert found[name].tobytes() == want.tobytes(), name


@pytest.mark.parametrize("zip_format", [True, False])
def test_torch_save_is_read(tmp_path, zip_format):
    held = {"model": state(), "args": argparse.Namespace(lr=0.1), "step": 3, "shape": torch.Size([2])}
    torch.save(held, tmp_path / "a.pt", _use_new_zipfile_serialization=zip_format)
    same(pickles.read(tmp_path / "a.pt"), {f"model.{name}": tensor for name, tensor in state().items()})


def test_a_pickled_module_is_read(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).bfloat16())
    net[0].scale = np.float64(0.5)  # an attribute, and no weight
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": net}))
    same(pickles.read(tmp_path / "a.pkl"), {f"ema.{name}": tensor for name, tensor in net.state_dict().items()})


def test_safetensors_are_read_and_written_alike(tmp_path):
    tensors = {name: tensor.contiguous().clone() for name, tensor in state().items()}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    found = ours.read(tmp_path / "a.safetensors")
    same(found, tensors)
    ours.write(tmp_path / "b.safetensors", found, {"format": "pt"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_flax_msgpack_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 16)
    tree = {"a": {"kernel": np.arange(12.0).reshape(3, 4), "b_0": np.ones(2, ml_dtypes.bfloat16)}, "n": np.float32(2)}
    (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    found = msgpack.read(tmp_path / "a.msgpack")
    assert set(found) == {"a/kernel", "a/b_0", "n"}
    np.testing.assert_array_equal(found["a/kernel"], tree["a"]["kernel"])
    assert found["a/b_0"].dtype == ml_dtypes.bfloat16

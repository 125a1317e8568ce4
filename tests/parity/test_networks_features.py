"""The networks of features beside their originals with random weights, saved as those are and read from the files."""

import sys
import types
from importlib.util import find_spec

import jax
import numpy as np
import pytest
import torch

from diffjax.assessment.encoders import read_encoder
from diffjax.evaluation.pipeline import RESIZES

pytestmark = pytest.mark.usefixtures("single_precision")
TOLERANCE = 2e-5  # of answers of size 1


def randomised(model):
    """Every parameter and statistic drawn anew, of the size of trained ones."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=draw)
            if name.endswith("running_var"):
                tensor.copy_(torch.exp(0.3 * noise))
            elif tensor.is_floating_point():
                gain = tensor.ndim == 1 and (name.endswith("weight") or "scale" in name or "gamma" in name)
                spread = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.2
                tensor.copy_(float(gain) + spread * noise)
    return model.eval()


def compare(found, wanted):
    wanted = wanted.detach().numpy()
    assert wanted.std() > 0.1
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def fidelity(monkeypatch):
    """torch-fidelity's network; the package itself wants torchvision, for other networks."""
    package = types.ModuleType("torch_fidelity")
    spec = find_spec("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr(torch, "load", lambda *args, **options: {})
    return FeatureExtractorInceptionV3


FIDELITY = pytest.mark.skipif(find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed")
INTERPOLATE = torch.nn.functional.interpolate
THEIRS = {
    "bilinear": lambda x, size, tf1: INTERPOLATE(x, size, mode="bilinear"),
    "bilinear_antialiased": lambda x, size, tf1: INTERPOLATE(x, size, mode="bilinear", antialias=True),
    "bicubic_antialiased": lambda x, size, tf1: INTERPOLATE(x, size, mode="bicubic", antialias=True),
    "bilinear_corners": lambda x, size, tf1: tf1(x, size=size, align_corners=False),
}


@FIDELITY
@pytest.mark.parametrize("side, size", [(32, (299, 299)), (500, (299, 224))])
@pytest.mark.parametrize("name", RESIZES)
def test_resizes(name, side, size, monkeypatch):
    fidelity(monkeypatch)
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as tf1

    x = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype(np.float32)
    wanted = THEIRS[name](torch.from_numpy(x).permute(0, 3, 1, 2), size, tf1).permute(0, 2, 3, 1).numpy()
    found = jax.jit(RESIZES[name], static_argnums=1)(x, size)
    assert np.abs(found - wanted).max() <= 2e-2  # of 255: weights are of single precision


@FIDELITY
def test_inception(monkeypatch, tmp_path):
    names = ["2048", "logits_unbiased", "logits"]
    with monkeypatch.context() as patch:
        theirs = randomised(fidelity(patch)("inception", names, feature_extractor_weights_path="none"))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = read_encoder(tmp_path / "weights.pth", ["inception"])
    theirs.INPUT_IMAGE_SIZE = 107  # the last grid then has four positions
    x = np.random.default_rng(0).integers(0, 256, (2, 107, 107, 3), np.uint8)
    wanted = theirs(torch.from_numpy(x).permute(0, 3, 1, 2))
    features, logits = jax.jit(ours.net.apply)(ours.params, (x.astype(np.float32) - 128) / 128)
    compare(features, wanted[0])
    compare(logits, wanted[2])
    compare(np.asarray(logits) - ours.params["head"]["bias"], wanted[1])


SMALL = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=20, patch_size=4)
WANTS = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")


def answers(theirs, layout, folder, size, key):
    theirs = randomised(theirs)
    theirs.save_pretrained(folder)
    ours = read_encoder(folder, [layout])
    x = np.random.default_rng(1).standard_normal((3, *size, 3)).astype(np.float32)
    with torch.no_grad():
        told = {"interpolate_pos_encoding": True} if layout == "transformers-clip" and size != (20, 20) else {}
        wanted = getattr(theirs(pixel_values=torch.from_numpy(x).permute(0, 3, 1, 2), **told), key)
    compare(jax.jit(ours.net.apply)(ours.params, x), wanted)


@WANTS
@pytest.mark.parametrize("size", [(20, 20), (32, 12)])
def test_dinov2(size, tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    answers(Dinov2Model(Dinov2Config(**SMALL)), "transformers-dinov2", tmp_path, size, "pooler_output")


@WANTS
@pytest.mark.parametrize("size", [(20, 20), (32, 12)])
def test_dinov2_with_registers(size, tmp_path):
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL))
    answers(model, "transformers-dinov2", tmp_path, size, "pooler_output")


@WANTS
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_clip(act, tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(**SMALL, intermediate_size=192, projection_dim=8, hidden_act=act)
    answers(CLIPVisionModelWithProjection(config), "transformers-clip", tmp_path, (20, 20), "image_embeds")

"""Networks of features beside recordings of the originals: names, shapes, answers, with weights that are a function of
their names.

encoders/*.json were made once, in PyTorch on a CPU, in float32: `inception` by torch-fidelity 0.4.0 at 107 x 107, for
four positions in the last block, the two others by the code of facebookresearch/dinov2, small.  Of the answers every
eighth or 64th number is kept.
"""

import functools
import json
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from diffjax.assessment.encoders import located, read_encoder
from diffjax.errors import InputError
from diffjax.interchange import safetensors
from diffjax.interchange.layouts import ENCODERS, Target
from diffjax.interchange.rules import exported, pair
from diffjax.training import named

ORIGINALS = {path.stem: path for path in sorted((Path(__file__).parent / "encoders").glob("*.json"))}
TOLERANCE = 2e-5  # of the largest answer


def value(name, shape):
    """Of the size of a trained weight, before a relu."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        return np.exp(0.3 * draw).astype(np.float32)
    if len(shape) > 1:
        return (draw * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    return (1 + 0.3 * draw if name.endswith(("weight", "gamma")) else 0.2 * draw).astype(np.float32)


def arrays_of(name):
    said = json.loads(ORIGINALS[name].read_text())
    floating = {tensor: shape for tensor, shape in said["tensors"].items() if "num_batches" not in tensor}
    return said, {tensor: value(tensor, tuple(shape)) for tensor, shape in floating.items()}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    @functools.cache
    def read(name):
        said, arrays = arrays_of(name)
        path = tmp_path_factory.mktemp("encoders") / f"{name}.safetensors"
        safetensors.write(path, arrays)
        return said, arrays, read_encoder(path, [said["layout"]])

    return read


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "inception" else n for n in ORIGINALS]
)
def test_it_answers_as_the_original(name, opened):
    said, _, encoder = opened(name)
    apply = jax.jit(encoder.net.apply)
    for answer in said["answers"]:
        draw, shape = np.random.default_rng(0), (2, *answer["size"], 3)
        if name == "inception":
            found, logits = apply(
                encoder.params, (draw.integers(0, 256, shape, np.uint8).astype(np.float32) - 128) / 128
            )
            logits, wanted = logits[:, :: said["every"]], np.asarray(answer["logits"])
            assert np.abs(logits - wanted).max() <= TOLERANCE * np.abs(wanted).max()
        else:
            found = apply(encoder.params, draw.standard_normal(shape).astype(np.float32))
        wanted = np.asarray(answer["output"])
        assert wanted.std() > 0.3
        assert np.abs(found[:, :: said["every"]] - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("name", ORIGINALS)
def test_it_goes_back_bit_for_bit(name, opened):
    said, arrays, encoder = opened(name)
    kind, ours = ENCODERS[said["layout"]], named(encoder.params)
    leaves = {leaf: array.shape for leaf, array in ours.items()}
    back = exported(pair(kind.rows(Target(leaves, encoder.options, (), 0)), leaves), ours)
    assert back.keys() == {tensor for tensor in arrays if tensor != "mask_token"}
    for tensor, array in back.items():
        np.testing.assert_array_equal(array, arrays[tensor], err_msg=tensor)


@pytest.mark.parametrize(
    "changes, says",
    [
        (
            {"blocks.1.attn.qkv.weight": np.zeros((3, 5))},
            r"'blocks.1.attn.qkv.weight' is \[3, 5\] in the file and would",
        ),
        ({"norm.bias": None}, "lacks 'norm.bias'"),
        ({"blocks.0.more": np.zeros(2)}, r"has 'blocks.0.more' \[2\]"),
        ({"pos_embed": None}, "lacks 'pos_embed', by which its network is known"),
    ],
)
def test_what_does_not_fit_is_named(changes, says, tmp_path):
    arrays = {**arrays_of("dinov2")[1], **changes}
    safetensors.write(tmp_path / "w.safetensors", {n: a.astype(np.float32) for n, a in arrays.items() if a is not None})
    with pytest.raises(InputError, match=says):
        read_encoder(tmp_path / "w.safetensors", ["dinov2"])


@pytest.mark.parametrize(
    "kind, says",
    [
        (
            "inception",
            "pt_inception-2015-12-05-6726825d.pth is in releases of github.com/mseitzer/pytorch-fid, its SHA-256",
        ),
        ("dinov2", "dinov2_vitl14_pretrain.pth is in .*facebookresearch/dinov2, its SHA-256 begins with d5383ea8"),
        ("clip", "openai/clip-vit-large-patch14"),
    ],
)
def test_a_file_that_is_missing_is_named_with_its_place(kind, says, tmp_path):
    with pytest.raises(InputError, match=f"there is no {tmp_path}.*{says}"):
        located(kind, "", tmp_path)
    with pytest.raises(InputError, match=f"there is no nowhere.pth.*{says}"):
        located(kind, "nowhere.pth", tmp_path)


def test_a_file_of_a_published_name_is_what_was_published(tmp_path):
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    path.write_bytes(b"another")
    with pytest.raises(InputError, match="its SHA-256 does not begin with 6726825d"):
        located("inception", "", tmp_path)

"""Models of diffusers with random weights, saved as they save them and imported: they answer the same, and go back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DModel

from configs import digits
from diffjax import certificate, transfer
from diffjax.interchange import safetensors
from diffjax.interchange.layouts import layout
from diffjax.model import load

pytestmark = pytest.mark.usefixtures("single_precision")
TOLERANCE = 2e-5  # of answers of size 1


def randomised(model):
    """Every parameter drawn anew: zeros and ones would hide what is connected to nothing."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if "norm" in name else 1 / np.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.2
            centre = 1.0 if "norm" in name and name.endswith("weight") and parameter.ndim == 1 else 0.0
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def dit():
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=3, out_channels=6, num_layers=3, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10, norm_eps=1e-6,
    )  # fmt: skip
    for block in model.transformer_blocks[1:]:  # as in a model converted from DiT
        block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    embeddings = randomised(model).transformer_blocks[0].norm1.emb.state_dict()
    for block in model.transformer_blocks:
        block.norm1.emb.load_state_dict(embeddings)
    return model


def unet(**options):
    small = dict(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return randomised(UNet2DModel(**small | options))


def adm():
    return unet(
        num_class_embeds=10, resnet_time_scale_shift="scale_shift", downsample_type="resnet", upsample_type="resnet",
        down_block_types=("AttnDownBlock2D",) * 2, up_block_types=("AttnUpBlock2D",) * 2, attention_head_dim=16,
        attn_norm_num_groups=8, freq_shift=0,
    )  # fmt: skip


MODELS = {
    "diffusers-dit": dit,
    "diffusers-unet": unet,
    "diffusers-unet, conditional": adm,
    "diffusers-unet, other options": lambda: unet(
        downsample_padding=0, attention_head_dim=None, freq_shift=1, flip_sin_to_cos=False, layers_per_block=2
    ),
}


def config(**net):
    changed = digits.get_config()
    changed.net = dict(name="dit") | net
    return changed.to_dict()


def told(model):
    draw = np.random.default_rng(0)
    x, steps = draw.standard_normal((3, 8, 8, 3)).astype(np.float32), np.array([0, 40, 90])
    labelled = getattr(model.config, "num_class_embeds", 10)
    return x, steps, np.array([3, 0, 9]) if labelled else None


def asked(model, x, steps, label):
    """What they answer, and what every module of theirs does."""
    seen = {}
    keep = lambda name: lambda module, args, out: seen.update({name: out}) if torch.is_tensor(out) else None  # noqa: E731
    hooks = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        told = [torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(steps)]
        out = model(*told, None if label is None else torch.from_numpy(label)).sample
    for hook in hooks:
        hook.remove()
    return out.permute(0, 2, 3, 1).numpy(), {name: value.numpy() for name, value in seen.items()}


@pytest.mark.parametrize("case", MODELS)
def test_an_imported_model_answers_the_same_and_goes_back(tmp_path, case):
    name, model = case.split(",")[0], MODELS[case]()
    model.save_pretrained(tmp_path / "theirs")
    transfer.import_weights(tmp_path / "theirs", name, config(), tmp_path / "ours")
    ours = load(tmp_path / "ours")
    x, steps, label = told(model)
    answer, seen = asked(model, x, steps, label)
    level = jnp.asarray(steps + 1, jnp.float32) / 1000
    found = jax.jit(ours.experiment.net.apply)(ours.params, x, level, label)
    assert answer.std() > 0.1
    assert np.abs(found - answer).max() <= TOLERANCE * max(1, np.abs(answer).max())

    transfer.export_weights(tmp_path / "ours", name, tmp_path / "back.safetensors")
    theirs = tmp_path / "theirs" / "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "back.safetensors").read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("case", ["diffusers-dit", "diffusers-unet"])
def test_every_module_answers_the_same(tmp_path, case):
    model = MODELS[case]()
    model.save_pretrained(tmp_path / "theirs")
    experiment = transfer.import_weights(tmp_path / "theirs", case, config(), tmp_path / "ours")
    x, steps, label = told(model)
    answer, seen = asked(model, x, steps, label)
    recorded = seen | dict(x=x, level=(steps + 1) / 1000, output=answer) | ({} if label is None else {"label": label})
    np.savez(tmp_path / "recorded.npz", **recorded)
    pairs = transfer.pairs_of(layout(case), case, transfer.target_of(experiment))
    found = certificate.certify(experiment, load(tmp_path / "ours").params, tmp_path / "recorded.npz", pairs)
    assert len(found.modules) >= 20
    for row in (*found.modules, found.output):
        assert row.error <= TOLERANCE * max(1, row.size), row


def test_the_blocks_embeddings_must_be_equal(tmp_path):
    model = dit()
    with torch.no_grad():
        model.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.bias[0] += 1
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'embed/hidden/bias' cannot be made of .* not equal"):
        transfer.import_weights(tmp_path, "diffusers-dit", config(), tmp_path / "ours")


def test_a_wrong_weight_shows_where_it_is(tmp_path):
    """The certificate names the module, not just the output."""
    model = dit()
    model.save_pretrained(tmp_path / "theirs")
    experiment = transfer.import_weights(tmp_path / "theirs", "diffusers-dit", config(), tmp_path / "ours")
    params = load(tmp_path / "ours").params
    kernel = params["blocks"]["mlp"]["second"]["kernel"]
    params["blocks"]["mlp"]["second"]["kernel"] = kernel.at[1, 0, 0].add(1e-2)
    x, steps, label = told(model)
    answer, seen = asked(model, x, steps, label)
    np.savez(tmp_path / "a.npz", **seen, x=x, level=(steps + 1) / 1000, label=label, output=answer)
    pairs = transfer.pairs_of(layout("diffusers-dit"), "diffusers-dit", transfer.target_of(experiment))
    rows = certificate.certify(experiment, params, tmp_path / "a.npz", pairs).modules
    assert next(row.module for row in rows if row.error > 1e-4) == "blocks/1/mlp/second"


def test_safetensors_of_theirs_are_read_without_them(tmp_path):
    model = dit()
    model.save_pretrained(tmp_path)
    found = safetensors.read(tmp_path / "diffusion_pytorch_model.safetensors")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(found[name], tensor.numpy())

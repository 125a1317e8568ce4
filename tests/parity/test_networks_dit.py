"""The transformer beside diffusers' DiT with the same random weights: what it answers, and every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel

from diffjax.nets import NETS, functional

pytestmark = pytest.mark.usefixtures("single_precision")
DEPTH, HEADS, WIDTH, SIDE, PATCH, CHANNELS, CLASSES, TOLERANCE = 3, 2, 24, 8, 2, 3, 10, 2e-5


def stack(name, convert):
    """A parameter of every block, by its name in torch."""
    return lambda read: np.stack([convert(read(f"transformer_blocks.{i}.{name}")) for i in range(DEPTH)])


def parts(n):
    """Rows n x width of a torch kernel or bias -> [..., n, width], inputs first."""
    return lambda a: np.moveaxis(a.reshape(n, -1, *a.shape[1:]), (0, 1), (-2, -1))


def fused(kind):
    """Queries, keys and values, three layers there."""
    names = [f"attn1.to_{letter}.{kind}" for letter in "qkv"]
    return lambda read: np.stack([stack(name, np.transpose)(read) for name in names], axis=-2)


def linear(ours, theirs, *, of=np.transpose):
    """Kernel and bias of a layer outside of the blocks."""
    return {f"{ours}/{a}": (lambda read, b=b: of(read(f"{theirs}.{b}"))) for a, b in KINDS}


def inside(ours, theirs, of=np.transpose):
    """Kernel and bias of a layer of the blocks."""
    return {f"blocks/{ours}/{a}": stack(f"{theirs}.{b}", of) for a, b in KINDS}


KINDS = (("kernel", "weight"), ("bias", "bias"))
EMBEDDING = "transformer_blocks.0.norm1.emb"  # every block's is the same
PARAMETERS = {
    **linear("embed/hidden", f"{EMBEDDING}.timestep_embedder.linear_1"),
    **linear("embed/out", f"{EMBEDDING}.timestep_embedder.linear_2"),
    "embed/label/embedding": lambda read: read(f"{EMBEDDING}.class_embedder.embedding_table.weight"),
    "stem/linear/kernel": lambda read: read("pos_embed.proj.weight").transpose(2, 3, 1, 0).reshape(-1, WIDTH),
    "stem/linear/bias": lambda read: read("pos_embed.proj.bias"),
    **inside("film", "norm1.linear", parts(6)),
    "blocks/attention/qkv/kernel": fused("weight"),
    "blocks/attention/qkv/bias": fused("bias"),
    **inside("attention/out", "attn1.to_out.0"),
    **inside("mlp/first", "ff.net.0.proj", parts(1)),
    **inside("mlp/second", "ff.net.2"),
    **linear("film", "proj_out_1", of=parts(2)),
    **linear("head", "proj_out_2"),
}  # fmt: skip


def tree(read):
    """Our parameters from a function of their name in torch."""
    out: dict = {}
    for name, value in PARAMETERS.items():
        *path, last = name.split("/")
        place = out
        for word in path:
            place = place.setdefault(word, {})
        place[last] = jnp.asarray(value(read), jnp.float32)
    return out


def their_model():
    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, in_channels=CHANNELS, out_channels=2 * CHANNELS,
        num_layers=DEPTH, sample_size=SIDE, patch_size=PATCH, num_embeds_ada_norm=CLASSES, norm_eps=1e-6,
    ).eval()  # fmt: skip
    for block in model.transformer_blocks[1:]:
        block.norm1.emb = model.transformer_blocks[0].norm1.emb
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.15 * torch.randn_like(parameter))
    return model


def our_net():
    options = dict(cosine_first=True, last=True, scale=1.0)
    return functional(lambda rngs: NETS["dit"](
        (SIDE, SIDE, CHANNELS), CLASSES, rngs=rngs, width=WIDTH, depth=DEPTH, heads=HEADS, patch=PATCH, outputs=2,
        options=options,
    ))  # fmt: skip


def given():
    """x, labels, and what draws the rest."""
    draw = np.random.default_rng(0)
    return draw.standard_normal((4, SIDE, SIDE, CHANNELS)).astype(np.float32), np.array([0, 3, 9, CLASSES]), draw


def asked(model, x, steps, label):
    """Their answer, channels last, in the model's precision."""
    image = torch.from_numpy(x).to(model.dtype).permute(0, 3, 1, 2)
    return model(image, torch.from_numpy(steps), torch.from_numpy(label)).sample.permute(0, 2, 3, 1)


def test_what_it_answers_and_every_gradient():
    x, label, draw = given()
    steps = np.array([0, 3, 40, 90])  # until where frequencies in single precision answer alike; then, below
    mix = draw.standard_normal((4, SIDE, SIDE, 2 * CHANNELS)).astype(np.float32) / SIDE
    theirs = their_model()
    answer = asked(theirs, x, steps, label)
    (answer * torch.from_numpy(mix)).sum().backward()
    weights = dict(theirs.named_parameters(remove_duplicate=False))
    gradients = tree(lambda name: weights[name].grad.numpy())

    with jax.enable_x64(False):
        net = our_net()
        params = tree(lambda name: weights[name].detach().numpy())
        condition = jnp.asarray(x), jnp.asarray(steps, jnp.float32), jnp.asarray(label, jnp.int32)
        ours = jax.jit(net.apply)(params, *condition)
        found = jax.jit(jax.grad(lambda params: jnp.sum(net.apply(params, *condition) * mix)))(params)

    assert np.abs(ours).max() > 0.5
    np.testing.assert_allclose(ours, answer.detach().numpy(), rtol=0, atol=TOLERANCE)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE, err_msg=jax.tree_util.keystr(path))


def test_late_steps_against_double_precision():
    """At step 999 the two differ by 4e-5: theirs is what rounds.  The arbiter is theirs, waves and all, in double."""
    x, label, _ = given()
    steps = np.array([90, 400, 700, 999])
    theirs = their_model()
    weights = {name: weight.detach().numpy() for name, weight in theirs.named_parameters(remove_duplicate=False)}
    rounded = asked(theirs, x, steps, label).detach().numpy()
    waves = theirs.transformer_blocks[0].norm1.emb.time_proj
    half = waves.num_channels // 2

    def exact(t):
        angles = t.double()[:, None] * torch.from_numpy(10000.0 ** (-np.arange(half) / (half - 1)))
        return torch.cat([angles.cos(), angles.sin()], -1)

    waves.forward = exact
    answer = asked(theirs.double(), x, steps, label).detach().numpy()
    with jax.enable_x64(False):
        condition = jnp.asarray(x), jnp.asarray(steps, jnp.float32), jnp.asarray(label, jnp.int32)
        ours = jax.jit(our_net().apply)(tree(weights.__getitem__), *condition)

    np.testing.assert_allclose(ours, answer, rtol=0, atol=TOLERANCE)
    assert np.abs(rounded - answer).max() > TOLERANCE  # if not, the first test can go to 999 too

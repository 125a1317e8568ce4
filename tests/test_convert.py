"""The command: weights become a run that is sampled from, trained further, exported and compared."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax
from configs import digits
from diffjax import convert
from diffjax.experiment import read_config
from diffjax.interchange import safetensors
from diffjax.interchange.layouts import LAYOUTS
from diffjax.interchange.rules import exported, pair
from diffjax.nets import NETS, functional
from diffjax.training import named
from diffjax.transfer import target_of_net

NET = dict(name="dit", width=24, depth=2, heads=2, patch=2, options=dict(cosine_first=True, scale=1000.0, offset=-1.0))
CONFIG = """
from configs import digits

def get_config():
    config = digits.get_config()
    config.net = dict(name="dit", heads=2)
    config.steps = 1
    config.sampler = dict(solver="ddim", steps=1, num=2)
    config.every = dict.fromkeys(config.every, 0) | dict(log=1)
    return config
"""


def weights():
    """A small random network in the layout of DiT."""
    options = {key: value for key, value in NET.items() if key != "name"}
    net = functional(lambda rngs: NETS["dit"]((8, 8, 1), 10, rngs=rngs, **options))
    target = target_of_net(net, NET, (8, 8, 1), 10)
    draw = np.random.default_rng(0)
    ours = {leaf: 0.2 * draw.standard_normal(shape).astype(np.float32) for leaf, shape in target.leaves.items()}
    layout = LAYOUTS["dit"]
    return ours, exported(pair(layout.rows(target), target.leaves), ours, fixed=layout.fixed(target))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with weights, a config, and the run that they became."""
    folder = tmp_path_factory.mktemp("convert")
    ours, theirs = weights()
    safetensors.write(folder / "dit.safetensors", theirs, {"format": "pt"})
    (folder / "config.py").write_text(CONFIG)
    command = f"{folder}/dit.safetensors --layout dit --config {folder}/config.py --workdir {folder}/run"
    convert.main(command.split())
    return folder, ours


def test_help_needs_no_jax():
    code = "import sys, diffjax.convert as c\ntry: c.arguments(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'jax', 'flax', 'numpy'} & set(sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert run.returncode == 0 and "--layout" in run.stdout, run.stderr


def test_an_import_is_a_run(place):
    folder, ours = place
    for raw in (False, True):
        model = diffjax.load(folder / "run", raw=raw)
        assert model.step == 0 and model.experiment.source.classes == 10
        for name, leaf in named(model.params).items():
            np.testing.assert_array_equal(leaf, ours[name], err_msg=name)
    x = model.sample(jax.random.key(0), 2, labels=[1], solver="ddim", steps=2)
    assert x.shape == (2, 8, 8, 1) and np.isfinite(x).all()


def test_an_export_is_what_was_imported(place):
    folder, _ = place
    convert.main(f"--layout dit --workdir {folder}/run --to {folder}/back.safetensors".split())
    assert (folder / "back.safetensors").read_bytes() == (folder / "dit.safetensors").read_bytes()
    convert.main(f"--layout dit --workdir {folder}/run --to {folder}/half.safetensors --dtype bfloat16".split())
    half = safetensors.read(folder / "half.safetensors")
    np.testing.assert_allclose(half["final_layer.linear.weight"].astype(float), safetensors.read(
        folder / "dit.safetensors")["final_layer.linear.weight"], rtol=2**-8)  # fmt: skip


def test_a_recording_of_itself_has_no_error(place, capsys):
    folder, _ = place
    model = diffjax.load(folder / "run")
    x, level = np.random.default_rng(1).standard_normal((2, 8, 8, 1)).astype(np.float32), np.array([0.1, 0.6])
    answer = model.experiment.net.apply(
        model.params, jnp.asarray(x), jnp.asarray(level, jnp.float32), jnp.array([1, 2])
    )
    np.savez(folder / "a.npz", x=x, level=level, label=[1, 2], output=np.asarray(answer) + 1e-3, other=np.zeros(3))
    convert.main(f"--layout dit --workdir {folder}/run --activations {folder}/a.npz".split())
    *_, unknown, last = capsys.readouterr().out.splitlines()
    assert last == "max error 1.0e-03 at output" and unknown.endswith("1 (other)")


@pytest.mark.slow
def test_it_is_trained_further(place):
    folder, ours = place
    diffjax.train(read_config(f"{folder}/config.py") | {"net": NET}, folder / "run", allow_changes=True)
    params = named(diffjax.load(folder / "run", raw=True).params)
    steps = {name: np.abs(leaf - ours[name]).max() for name, leaf in params.items()}
    assert 0 < max(steps.values()) <= 1.1 * digits.get_config().optimizer.learning_rate


REFUSED = {
    "--layout dot --workdir {w}/new": "no layout 'dot'; did you mean 'dit'?",
    "--layout dit --workdir {w}/new": "give a SOURCE",
    "{w}/dit.safetensors --layout dit --workdir {w}/new": "an import needs --config",
    "{w}/dit.safetensors --layout dit --workdir {w}/new --config {w}/none.py": "cannot load the config",
    "{w}/dit.safetensors --layout dit --workdir {w}/run --config {w}/config.py": "holds a run already",
    "{w}/none --layout dit --workdir {w}/new --config {w}/config.py": "no file of weights and no folder",
    "{w}/dit.safetensors --layout edm --workdir {w}/new --config {w}/config.py": "layout 'edm' is of nets adm, ",
    "--layout dit --workdir {w}/run --to {w}/a.npz": "written as .safetensors",
    "--layout dit --workdir {w}/run --to {w}/a.safetensors --dtype f8": "no dtype 'f8'",
    "--layout dit --workdir {w}/run --activations {w}/dit.safetensors": "cannot be read",
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_cannot_be_is_one_sentence(place, command, capsys):
    folder, _ = place
    with pytest.raises(SystemExit) as exit:
        convert.main(command.format(w=folder).split())
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert REFUSED[command] in error
    assert not (folder / "new").exists()

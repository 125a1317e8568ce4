"""A sampler in a file draws what the model draws, and traces nothing."""

import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import diffjax
from diffjax.errors import InputError
from diffjax.experiment import build
from diffjax.model import model_of
from tests.test_experiment import config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model():
    chosen = dict(net=dict(name="mlp", width=16, depth=2), sampler=dict(solver="ancestral", steps=4, num=8))
    experiment = build(config(**chosen))
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(experiment.net.init, jax.random.key(0))
    params = jax.tree.map(lambda a: 0.3 * draw.standard_normal(a.shape).astype(a.dtype), shapes)
    return model_of(experiment, params, 7)


@pytest.fixture(scope="module")
def guided(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "guided.sampler"
    return diffjax.export_sampler(model, path, batch=8, guided=True)


@pytest.mark.parametrize(
    "options", [{}, {"solver": "heun", "steps": 3, "grid": "log_snr"}, {"solver": "ddim", "eta": 0.5}]
)
def test_it_draws_what_the_model_draws(model, tmp_path, options):
    path = diffjax.export_sampler(model, tmp_path / "plain.sampler", batch=8, **options)
    sampler = diffjax.open_sampler(path)
    for seed, labels in ((0, None), (3, [1, 0])):
        wanted = model.sample(jax.random.key(seed), 8, labels=labels, **options)
        np.testing.assert_allclose(sampler(seed, labels=labels), wanted, rtol=1e-4, atol=1e-5)


def test_guidance_is_a_number_of_the_call(model, guided):
    sampler = diffjax.open_sampler(guided)
    for guidance in (0.5, 3.0):
        wanted = model.sample(jax.random.key(1), 8, labels=[0, 1], guidance=guidance)
        np.testing.assert_allclose(sampler(1, labels=[0, 1], guidance=guidance), wanted, rtol=1e-4, atol=1e-4)


def test_it_is_opened_without_the_config_being_built(guided):
    """The network is in the program: opening asks neither the tables of networks nor those of solvers."""
    code = (
        "import diffjax.export, diffjax.experiment, sys\n"
        "def refuse(*a, **k): raise AssertionError('built')\n"
        "diffjax.experiment.build = diffjax.experiment.pick = refuse\n"
        "diffjax.export.settled = diffjax.export.sampler = refuse\n"
        "print(diffjax.export.open_sampler(sys.argv[1])(labels=[1]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(guided)], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "(8, 2)", done.stderr


def test_one_file_serves_several_platforms(model, tmp_path):
    path = diffjax.export_sampler(model, tmp_path / "three.sampler", batch=2, platforms=("cpu", "cuda", "tpu"))
    assert diffjax.open_sampler(path)(0).shape == (2, 2)
    elsewhere = diffjax.export_sampler(model, tmp_path / "tpu.sampler", batch=2, platforms=("tpu",))
    with pytest.raises(InputError, match="exported for .'tpu'. and not for cpu; export it with --platforms"):
        diffjax.open_sampler(elsewhere)


def test_bad_input_is_a_sentence(model, guided, tmp_path):
    export = partial(diffjax.export_sampler, model)
    plain, broken = export(tmp_path / "plain.sampler", batch=2), tmp_path / "broken.sampler"
    broken.write_bytes(plain.read_bytes()[:-100])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "")
    refused = {
        "no platform 'gpu'; known: cpu": lambda: export(tmp_path / "a", batch=2, platforms=("gpu",)),
        "at least 1; got 0": lambda: export(tmp_path / "a", batch=0),
        "no solver 'dim'; did you mean": lambda: export(tmp_path / "a", batch=2, solver="dim"),
        "cannot write the sampler": lambda: export(tmp_path / "no" / "a", batch=2),
        "is no exported sampler": lambda: diffjax.open_sampler(broken),
        "no exported sampler: .*about.json": lambda: diffjax.open_sampler(tmp_path / "other.zip"),
        "make one with": lambda: diffjax.open_sampler(tmp_path / "absent"),
        "without guidance; export it with --guided": lambda: diffjax.open_sampler(plain)(labels=[0], guidance=2.0),
        "guidance needs labels": lambda: diffjax.open_sampler(guided)(guidance=2.0),
        "labels must be whole numbers in 0..1; got": lambda: diffjax.open_sampler(guided)(labels=[2]),
    }
    for sentence, attempt in refused.items():
        with pytest.raises(InputError, match=sentence):
            attempt()
    assert not (tmp_path / "a").exists()

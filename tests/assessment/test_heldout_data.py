"""What a run makes of held-out data: numbers with passports, the same however they are batched."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

import diffjax
from diffjax.assessment.heldout import cells_of, likelihood, noise_levels
from diffjax.data import digits, scaled, toy
from diffjax.diffusion.dequantization import place
from diffjax.errors import InputError


def numbers(workdir, name):
    return json.loads((workdir / "evaluation" / f"{name}.json").read_text())


def test_cells_are_those_of_the_values_that_are_trained_on():
    source = digits("test")
    cells = cells_of(source, (-1.0, 1.0))
    assert cells is not None and cells.levels == 17
    levels = np.arange(17, dtype=np.uint8)
    centres = place(jnp.asarray(levels.astype(np.int32)), 0.5, **cells._asdict())
    np.testing.assert_allclose(centres, scaled(levels, source, (-1.0, 1.0)), atol=1e-6)
    assert cells_of(toy("test"), (-1.0, 1.0)) is None


def test_the_bound_is_above_the_density_and_neither_depends_on_the_batch(trained, capsys):
    assert likelihood(trained, num=40, steps=40, draws=64, batch=40).exists()
    whole = numbers(trained, "likelihood")
    likelihood(trained, num=40, steps=40, draws=64, batch=16)
    parts = numbers(trained, "likelihood")
    for name in ("ode", "elbo"):
        assert parts["numbers"][name]["value"] == pytest.approx(whole["numbers"][name]["value"], rel=1e-5)
    ode, elbo = whole["numbers"]["ode"], whole["numbers"]["elbo"]
    assert ode["solver_error"] < 0.02
    # An exact denoiser's bound touches the density, a learned one's lies above it: by no less than chance allows.
    assert elbo["value"] > ode["value"] - 4 * math.hypot(elbo["estimator_error"], ode["estimator_error"])
    assert "bits a dimension" in capsys.readouterr().out
    assert whole["passport"]["n"] == 40 and whole["passport"]["model"]["step"] == 300


def test_the_bits_of_points_far_from_the_data_are_many(trained, monkeypatch):
    likelihood(trained, num=40, steps=20, draws=8, batch=40)
    near = numbers(trained, "likelihood")["numbers"]["ode"]["value"]
    law = toy("test")
    away = law._replace(read=lambda indices: law.read(indices) | {"x": law.read(indices)["x"] + 3})
    real = diffjax.assessment.run.build
    monkeypatch.setattr(diffjax.assessment.run, "build", lambda config: real(config)._replace(heldout=away))
    likelihood(trained, num=40, steps=20, draws=8, batch=40)
    assert numbers(trained, "likelihood")["numbers"]["ode"]["value"] > near + 1


def test_a_curve_of_losses_has_the_mean_of_every_level(trained):
    assert noise_levels(trained, points=8).exists()
    found = numbers(trained, "noise_levels")["numbers"]
    losses = diffjax.evaluation.make_evaluate  # at the same eight levels
    model = diffjax.load(trained)
    rows = diffjax.data.heldout(toy("test"), 64, value_range=tuple(model.experiment.config["data"]["range"]))
    expected = losses(model.experiment.denoise, model.experiment.process)(model.params, rows)
    values = [number["value"] for number in found.values()]
    assert np.mean(values) == pytest.approx(expected["heldout_loss"], rel=1e-5)
    snr = [number["log_snr"] for number in found.values()]
    assert snr == sorted(snr, reverse=True)
    for number in found.values():
        low, high = number["interval"]
        assert low < number["value"] < high


def test_refusals_are_sentences(trained, tmp_path):
    for call, words in (
        (lambda: likelihood(trained, num=1), "at least 2 examples"),
        (lambda: likelihood(trained, steps=3), "must be even"),
        (lambda: likelihood(trained, probes=1), "probes at least 2"),
        (lambda: noise_levels(trained, points=1), "2 to 1000 noise levels"),
        (lambda: noise_levels(tmp_path), "holds no run"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_a_run_without_held_out_data_says_so(trained, monkeypatch):
    real = diffjax.assessment.run.build
    monkeypatch.setattr(diffjax.assessment.run, "build", lambda config: real(config)._replace(heldout=None))
    with pytest.raises(InputError, match="no held-out data"):
        noise_levels(trained)

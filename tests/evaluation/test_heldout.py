"""The held-out loss: the mean over real rows and fixed levels, the same at every call."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import gaussian, parameterizations, schedules, weights
from diffjax.evaluation import make_evaluate
from diffjax.training import batch_sharding, make_mesh, to_devices

LEVELS = np.array([0.1, 0.45, 0.8])
PROCESS = gaussian.gaussian(schedules.cosine(), parameterizations.v(), weights.simple())


def make_batches(mask=(1,) * 16, n=2, scale=1.0):
    for i in range(n):
        x = scale * np.random.default_rng(i).standard_normal((16, 3), np.float32)
        keep = np.ones(16) if i < n - 1 else np.asarray(mask)  # only the last batch is padded
        yield {"x": x, "label": np.arange(16) + i, "mask": keep.astype(np.float32)}


def constant(params, xt, t, cond):
    """A guess that ignores what it sees, so that the loss does not depend on the noise."""
    return params + 0.1 * cond[:, None] + 0 * xt


def echo(params, xt, t, cond):
    return xt


@pytest.mark.parametrize("mask", [(1,) * 16, (1,) * 5 + (0,) * 11], ids=["full", "padded"])
def test_is_the_weighted_mean_over_real_rows(mask):
    found = make_evaluate(constant, PROCESS, levels=LEVELS)(jnp.float32(0.3), make_batches(mask))
    errors = [((0.3 + 0.1 * b["label"][:, None] - b["x"]) ** 2).mean(1)[b["mask"] > 0] for b in make_batches(mask)]
    error = np.concatenate(errors).mean()
    expected = {f"heldout_loss_t{t:.2f}": error / np.tan(np.pi * t / 2) ** 2 for t in LEVELS}
    assert set(found) == {"heldout_loss", *expected}
    for name, value in (expected | {"heldout_loss": np.mean(list(expected.values()))}).items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_noise_is_that_of_the_level_and_differs_between_batches_and_levels():
    zeros = {"x": np.zeros((256, 64), np.float32), "mask": np.ones(256, np.float32)}
    evaluate = make_evaluate(echo, PROCESS, levels=LEVELS)
    one, two = evaluate(None, [zeros]), evaluate(None, [zeros, zeros])
    for t in LEVELS:
        name = f"heldout_loss_t{t:.2f}"  # SNR sigma^2 mean(eps^2), sigma = sin(pi t / 2)
        expected = np.cos(np.pi * t / 2) ** 2
        assert one[name] == pytest.approx(expected, rel=0.05) and one[name] != two[name]
    drawn = [one[f"heldout_loss_t{t:.2f}"] / np.cos(np.pi * t / 2) ** 2 for t in LEVELS]
    assert np.ptp(drawn) > 1e-4


def test_padding_does_not_count():
    evaluate, mask = make_evaluate(echo, PROCESS), (1,) * 5 + (0,) * 11
    batches = list(make_batches(mask))
    expected = evaluate(None, batches)
    for junk in (100.0, np.nan):
        batches[-1] = batches[-1] | {"x": np.where(batches[-1]["mask"][:, None] > 0, batches[-1]["x"], junk)}
        assert evaluate(None, batches) == expected
    assert evaluate(None, make_batches()) != expected


def test_the_same_twice():
    fresh = [make_evaluate(echo, PROCESS)(None, make_batches()) for _ in range(2)]
    assert fresh[0] == fresh[1] and len(fresh[0]) == 9


def test_the_same_on_eight_devices():
    sharding = batch_sharding(make_mesh(2))
    evaluate = make_evaluate(echo, PROCESS, levels=LEVELS)
    expected = evaluate(None, make_batches())
    found = evaluate(None, [to_devices(batch, sharding) for batch in make_batches()])
    assert found == pytest.approx(expected, rel=1e-5)


def test_labels_are_optional():
    batches = [{"x": batch["x"], "mask": batch["mask"]} for batch in make_batches()]
    told = []
    make_evaluate(lambda params, xt, t, cond: told.append(cond) or xt, PROCESS, levels=LEVELS)(None, batches)
    assert set(told) == {None}


def test_parameters_are_arguments_of_one_program():
    traces = []

    def traced(params, xt, t, cond):
        traces.append(None)
        return constant(params, xt, t, cond)

    evaluate = make_evaluate(traced, PROCESS, levels=LEVELS)
    a, b = (evaluate(jnp.float32(p), make_batches(n=3))["heldout_loss"] for p in (0.0, 1.0))
    assert a != b and len(traces) == 1

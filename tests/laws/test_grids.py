"""Laws of sampling grids: every row falls from start to stop and is even in its own clock; bad grids are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import grids, schedules
from diffjax.diffusion.grids import GRIDS
from diffjax.diffusion.schedules import SCHEDULES

CHAINS = {"leading", "trailing", "linspace"}
each_grid = pytest.mark.parametrize("row", GRIDS)


@each_grid
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_grid_falls_from_start_to_stop(row, name):
    schedule = SCHEDULES[name]()
    for steps in (1, 7):
        for start, stop in ((1.0, 0.0), (0.8, 0.2)):
            ts = GRIDS[row](schedule, steps, start=start, stop=stop)
            assert ts.shape == (steps + 1,) and (jnp.diff(ts) < 0).all()
            late = row == "leading" or (row == "linspace" and steps == 1)  # as in the literature
            assert ts[-1] == stop and (ts[0] < start if late else ts[0] == start)


@each_grid
def test_grids_in_single_precision(row):
    with jax.enable_x64(False):
        ts = GRIDS[row](schedules.cosine(), 10)
    assert ts.dtype == jnp.float32 and ts[-1] == 0
    np.testing.assert_allclose(ts, GRIDS[row](schedules.cosine(), 10), rtol=1e-3)


@each_grid
def test_bad_ends_are_refused(row):
    for bad in [dict(steps=0), dict(steps=3, start=0.2, stop=0.5), dict(steps=3, start=1.5), dict(steps=3, stop=-0.5)]:
        with pytest.raises(ValueError, match="at least|within|must lie in|must fall"):
            GRIDS[row](schedules.linear(), **bad)


def test_uniform():
    np.testing.assert_allclose(grids.grid(4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(grids.grid(2, start=0.8, stop=0.2), [0.8, 0.5, 0.2])
    np.testing.assert_array_equal(grids.uniform(schedules.edm(), 5, start=0.9), grids.grid(5, start=0.9))
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        grids.grid(0)
    with pytest.raises(ValueError, match="from start down to stop within \\[0, 1\\]; got start=0.2, stop=0.5"):
        grids.grid(3, start=0.2, stop=0.5)


def test_quadratic():
    np.testing.assert_allclose(grids.quadratic(schedules.edm(), 4), [1, 9 / 16, 1 / 4, 1 / 16, 0])
    np.testing.assert_allclose(grids.quadratic(schedules.edm(), 2, start=0.8, stop=0.4), [0.8, 0.5, 0.4])


CLOCKS = {"log_snr": lambda level: level, "rho": lambda level: np.exp(-level / 2) ** (1 / 7)}


@pytest.mark.parametrize("row", CLOCKS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_even_in_its_clock(row, name):
    """All steps are alike in the clock, but the one to 0, and the first where log-SNR starts below what is counted."""
    schedule, clock = SCHEDULES[name](), CLOCKS[row]
    between = GRIDS[row](schedule, 12, start=0.9, stop=0.2)
    assert np.abs(np.diff(clock(np.asarray(schedules.log_snr(schedule, between))), n=2)).max() < 1e-8
    down = GRIDS[row](schedule, 12, least=2e-3)
    assert down[-2] == pytest.approx(2e-3, rel=1e-7)
    levels = np.asarray(schedules.log_snr(schedule, down[:-1]))
    capped = np.maximum(levels, -12.0)
    assert np.abs(np.diff(clock(capped), n=2)).max() < 1e-8
    assert (levels[0] < -12) == (name in {"cosine", "sigmoid", "flow", "cosine_betas", "cubic"})


def test_rho_is_the_grid_of_edm():
    """Karras et al. 2022, eq. 5: sigma_i for i < N, then 0."""
    schedule, i, (low, high) = schedules.edm(0.002, 80.0), np.arange(18), (0.002 ** (1 / 7), 80 ** (1 / 7))
    ts = grids.rho(schedule, 18, least=1e-12)
    sigma = schedule(ts)[1]
    np.testing.assert_allclose(sigma[:-1], (high + i / 17 * (low - high)) ** 7, rtol=1e-6)
    assert sigma[-1] == 0
    three = grids.rho(schedule, 18, rho=3.0)
    assert np.abs(np.diff(schedule(three[:-1])[1] ** (1 / 3), n=2)).max() < 1e-9


def test_a_least_time_above_the_start_is_refused():
    for row in CLOCKS:
        with pytest.raises(ValueError, match="a grid must fall"):
            GRIDS[row](schedules.linear(), 4, start=0.1, least=0.2)


@pytest.mark.parametrize("chain", [1000, 50])
def test_chains_use_the_steps_of_the_literature(chain):
    """k = 0 ... T - 1, as Lin et al. 2024, table 2 and the usual code have them, at t = (k + 1) / T, then 0."""
    for steps in {*range(2, 60), 100, 250, 333, 999, 1000} & {*range(chain + 1)}:
        leading = np.arange(steps)[::-1] * (chain // steps)
        trailing = np.round(chain - np.arange(steps) * (chain / steps)) - 1
        linspace = np.linspace(0, chain - 1, steps).round()[::-1]
        for name, k in (("leading", leading), ("trailing", trailing), ("linspace", linspace)):
            ts = GRIDS[name](schedules.discrete(), steps, chain=chain)
            np.testing.assert_allclose(ts, np.append((k + 1) / chain, 0), rtol=1e-12, err_msg=f"{name} {steps}")


def test_chains_between_ends_and_with_an_offset():
    np.testing.assert_allclose(grids.leading(schedules.discrete(), 4, offset=1), [0.752, 0.502, 0.252, 0.002, 0])
    np.testing.assert_allclose(grids.leading(schedules.discrete(), 2, start=0.8, stop=0.4), [0.601, 0.401, 0.4])
    np.testing.assert_allclose(grids.trailing(schedules.discrete(), 2, start=0.8, stop=0.4), [0.8, 0.6, 0.4])
    np.testing.assert_allclose(grids.linspace(schedules.discrete(), 2, start=0.8, stop=0.4), [0.8, 0.401, 0.4])
    with pytest.raises(ValueError, match="must lie in \\[0, 1\\]; got 1.002 at index \\(0,\\)"):
        grids.leading(schedules.discrete(), 4, offset=251)
    for row in sorted(CHAINS):
        with pytest.raises(ValueError, match="must fall"):
            GRIDS[row](schedules.discrete(), 20, chain=10)


BAD = [
    ([1.0], "at least 2 times along its first axis, as \\[1, 0\\] has; got shape \\(1,\\)"),
    (np.array(0.5), "at least 2 times .* got shape \\(\\)"),
    ([1.2, 0.5, 0.0], "must lie in \\[0, 1\\]; got 1.2 at index \\(0,\\)"),
    ([1.0, 0.5, -0.1], "must lie in \\[0, 1\\]; got -0.1 at index \\(2,\\)"),
    ([1.0, float("nan"), 0.0], "must lie in \\[0, 1\\]; got nan at index \\(1,\\)"),
    ([0.0, 0.5, 1.0], "must fall, from noise to data; got 0.0 at index \\(0,\\) and then 0.5"),
    ([1.0, 0.5, 0.5, 0.0], "must fall, from noise to data; got 0.5 at index \\(1,\\) and then 0.5"),
    ([1.0, 0.4, 0.4, 0.5], "must fall, from noise to data; got 0.4 at index \\(1,\\) and then 0.4"),
    ([[1.0, 1.0], [0.5, 0.6], [0.4, 0.6], [0.0, 0.2]], "must fall, .* got 0.6 at index \\(1, 1\\) and then 0.6"),
    ([[1.0], [1.0], [0.5], [1.0]], "must fall, from noise to data; got 0.5 at index \\(2, 0\\) and then 1.0"),
    ([1.0, 1.0, 0.5], "must fall, from noise to data; got 1.0 at index \\(0,\\) and then 1.0"),
]


@pytest.mark.parametrize("ts, sentence", BAD)
def test_bad_grids_are_refused_with_the_place(ts, sentence):
    with pytest.raises(ValueError, match=sentence):
        grids.given(ts)


@pytest.mark.parametrize(
    "ts",
    [
        [1, 0],
        [1.0, 0.5, 0.0, 0.0, 0.0],
        [[1.0, 1.0], [0.5, 1.0], [0.2, 0.7], [0.2, 0.0]],
        [[1.0, 0.7], [0.5, 0.2], [0.5, 0.0]],
        np.ones((3, 2, 1)) * [[[1]], [[0.5]], [[0]]],
    ],
)
def test_good_grids_pass_unchanged(ts):
    got = grids.given(ts)
    assert got.dtype == jnp.float64
    np.testing.assert_array_equal(got, ts)


def test_traced_grids_pass():
    ts = jnp.asarray([0.0, 1.0])
    np.testing.assert_array_equal(jax.jit(grids.check)(ts), ts)


def test_padding_repeats_the_last_time():
    np.testing.assert_array_equal(grids.pad(grids.grid(2), 5), [1, 0.5, 0, 0, 0])
    one = jnp.stack([grids.grid(2), grids.grid(2, start=0.8, stop=0.2)], axis=1)
    padded = grids.pad(one, 4)
    np.testing.assert_array_equal(padded, jnp.concatenate([one, one[-1:]]))
    np.testing.assert_array_equal(grids.pad(one, 3), one)
    grids.check(padded)
    with pytest.raises(ValueError, match="a grid of 3 times cannot be padded to 2"):
        grids.pad(one, 2)

"""A solver held to what is known, against the law that its algorithm has, and the law that it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import grids
from diffjax.diffusion.brownian import brownian
from diffjax.diffusion.sampling import generate, row_keys, sample
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.solvers.inpainting import repaint
from diffjax.testbed import analytic
from tests.laws.exact import process_of

COVARIANCE, KNOWN, MASK = np.asarray([[1.0, 0.8], [0.8, 1.0]]), np.asarray([1.0, 0.0]), np.asarray([1, 0])
N = 20_000


def drawn(name, solver, *, steps, rows=N, **options):
    process = process_of(name)
    denoise = analytic.correlated(jnp.zeros(2), jnp.asarray(COVARIANCE)).denoise(process.schedule)
    held = repaint(process, SOLVERS[solver](process), KNOWN, MASK, **options)
    ts, like = grids.uniform(process.schedule, steps), jnp.zeros((rows, 2))
    keys = row_keys(jax.random.key(0), rows)
    return jax.jit(lambda k: generate(k, denoise, held, process=process, ts=ts, like=like))(keys)


def algorithm(name, steps, repeats, jump):
    """(mean, covariance) of x at 0 by algorithm 1 of Lugmayr et al. 2022, for one Gaussian, in matrices."""
    schedule = lambda t: [float(part) for part in process_of(name).schedule(jnp.asarray(float(t)))]  # noqa: E731
    free = np.diag(1.0 - MASK)
    t, (_, sigma) = steps, schedule(1)
    m, c = np.zeros(2), sigma**2 * np.eye(2)

    def down(m, c, t):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t / steps), schedule((t - 1) / steps)
        kept = alpha_t / alpha_s
        variance = sigma_t**2 - (kept * sigma_s) ** 2
        guess = alpha_t * COVARIANCE @ np.linalg.inv(alpha_t**2 * COVARIANCE + sigma_t**2 * np.eye(2))
        A = kept * sigma_s**2 / sigma_t**2 * np.eye(2) + alpha_s * variance / sigma_t**2 * guess
        c = A @ c @ A.T + sigma_s**2 * variance / sigma_t**2 * np.eye(2)
        m = free @ A @ m + alpha_s * MASK * KNOWN
        return m, free @ c @ free + sigma_s**2 * np.diag(1.0 * MASK)

    def up(m, c, low, high):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(high / steps), schedule(low / steps)
        kept = alpha_t / alpha_s
        return kept * m, kept**2 * c + (sigma_t**2 - (kept * sigma_s) ** 2) * np.eye(2)

    while t > 0:
        low = max(t - jump, 0)
        for again in range(repeats):
            if again:
                m, c = up(m, c, low, t)
            for step in range(t, low, -1):
                m, c = down(m, c, step)
        t = low
    return m, c


@pytest.mark.parametrize("name, repeats, jump", [("linear", 1, 1), ("edm", 4, 1), ("flow", 3, 3)])
def test_the_algorithm_and_its_law(name, repeats, jump):
    x, (mean, covariance) = (
        drawn(name, "ancestral", steps=8, repeats=repeats, jump=jump),
        algorithm(name, 8, repeats, jump),
    )
    np.testing.assert_allclose(x.mean(0), mean, atol=4 * covariance[1, 1] ** 0.5 / N**0.5 + 1e-12)
    np.testing.assert_allclose(np.var(x, axis=0), np.diag(covariance), rtol=4 * (2 / N) ** 0.5, atol=1e-12)


def test_repeats_lead_to_the_conditional_law():
    """p(x_2 | x_1 = 1) = N(0.8, 0.36); replacement alone has a mean below 0.5."""
    once, often = (drawn("edm", "ddim", steps=60, rows=2000, repeats=r)[:, 1] for r in (1, 30))
    assert abs(once.mean() - 0.8) > 0.3 and abs(once.var() - 0.36) > 0.1
    assert abs(often.mean() - 0.8) < 0.04 and abs(often.var() - 0.36) < 0.07


@pytest.mark.parametrize("solver", ["ancestral", "ddim", "euler_maruyama", "reverse_diffusion"])
def test_what_is_known_is_kept_and_rows_are_alone(solver):
    x = drawn("linear", solver, steps=5, rows=3, repeats=2, jump=2)
    np.testing.assert_array_equal(x[:, 0], 1)
    np.testing.assert_allclose(drawn("linear", solver, steps=5, rows=2, repeats=2, jump=2), x[:2], rtol=1e-12)


def test_nothing_known_is_the_solver_itself():
    process, ts = process_of("linear"), grids.grid(5)
    denoise, x = analytic.point(jnp.asarray([2.0])).denoise(process.schedule), jnp.asarray([[0.3], [1.5]])
    solver, key = SOLVERS["ddim"](process), jax.random.key(0)
    held = repaint(process, solver, 9.0, 0)
    for padded in (False, True):
        got = sample(key, denoise, held, ts=grids.pad(ts, 9), x=x, padded=padded)
        np.testing.assert_array_equal(got, sample(key, denoise, solver, ts=ts, x=x))


def test_bad_input():
    process, x = process_of("linear"), jnp.zeros((1, 2))
    solver = SOLVERS["ancestral"](process)
    for options in ({"repeats": 0}, {"jump": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            repaint(process, solver, KNOWN, MASK, **options)
    with pytest.raises(ValueError, match="1 where known"):
        repaint(process, solver, KNOWN, 0.5 * MASK)
    for refused in ("dpmpp_2m", "heun"):
        with pytest.raises(ValueError, match="no memory"):
            repaint(process, SOLVERS[refused](process), KNOWN, MASK)
    several = repaint(process, SOLVERS["predictor_corrector"](process), KNOWN, MASK)
    with pytest.raises(ValueError, match="one call a step"):
        sample(jax.random.key(0), lambda x, t, c: x, several, ts=grids.grid(3), x=x)
    noise = brownian(jax.random.key(1), process.schedule)
    with pytest.raises(ValueError, match="without noise="):
        held = repaint(process, solver, KNOWN, MASK)
        sample(jax.random.key(0), lambda x, t, c: x, held, ts=grids.grid(3), x=x, noise=noise)
    with pytest.raises(ValueError, match="known"):
        held = repaint(process, solver, np.zeros(3), MASK)
        sample(jax.random.key(0), lambda x, t, c: x, held, ts=grids.grid(3), x=x)

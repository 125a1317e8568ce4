"""Plans: what a walk's numbers are, shortest paths, refinement, and that a plan beats every named grid."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion.grids import GRIDS, rho
from diffjax.diffusion.sampling import generate, row_keys
from diffjax.diffusion.solvers import SOLVERS
from diffjax.evaluation import planner as planning
from diffjax.evaluation.planner import make_field, plan, rms
from diffjax.evaluation.rollouts import Starts, make_ends, make_walks
from diffjax.evaluation.spacing import shortest
from diffjax.testbed.analytic import mixture
from diffjax.testbed.judge import Setting

# Two broad modes: no trajectory is close to a watershed, where a law is heavy-tailed and few rows say little.
WORLD = mixture(jnp.asarray([[1.0], [-0.6]]), jnp.asarray([[0.1], [0.3]]), jnp.asarray([1.0, 2.0]))
PROCESS = Setting("", "linear", "x0", SOLVERS["ddim"]).process
EXACT = WORLD.denoise(PROCESS.schedule)


def exact(x, t, c):
    return EXACT(x, t, c)


def starts(seed, rows=256):
    return Starts(row_keys(jax.random.key(seed), rows), jnp.zeros((rows, 1), jnp.float32))


@pytest.mark.parametrize("name", ["predictor_corrector", "unipc", "plms", "dpmpp_sde"])
def test_a_walk_of_numbers_ends_where_the_solver_does(name):
    """One of every kind: with its own noise, a corrector, a start of another kind, several calls a step; padded."""
    solver, ts = SOLVERS[name](PROCESS), np.asarray(rho(PROCESS.schedule, 3))
    (walk,) = make_walks(solver, 5)(ts[None])
    few = starts(0, 4)
    ends = make_ends(exact, PROCESS, 40)(walk, few)[0]
    direct = generate(few.keys, exact, solver, process=PROCESS, ts=jnp.asarray(ts), like=few.like)
    np.testing.assert_allclose(ends, direct, atol=1e-3)


def test_a_shortest_path_is_the_shortest_of_all():
    random = np.random.default_rng(0)
    first, later = random.uniform(size=(7, 7)), random.uniform(size=(7, 7, 7))
    first[np.tril_indices(7)] = np.inf
    h, i, j = np.indices(later.shape)
    later[(h >= i) | (i >= j)] = np.inf

    def length(path):
        return first[path[0], path[1]] + sum(later[path[k], path[k + 1], path[k + 2]] for k in range(len(path) - 2))

    for calls in range(1, 7):
        every = [[*some, 6] for some in combinations(range(6), calls)]
        assert shortest(first, later, calls) == min(every, key=length)
    with pytest.raises(ValueError, match="1 to 6 steps; got 7"):
        shortest(first, later, 7)


@pytest.fixture(scope="module")
def field():
    """A few rules of every kind stand for all; the others are compared by `python -m bench plan`."""
    few = {name: SOLVERS[name] for name in ("ddim", "dpmpp_2m", "dpmpp_3m", "unipc", "heun")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "SOLVERS", few)
        patch.setattr(planning, "OPTIONS", {})
        made = make_field(exact, PROCESS, starts(0), most=10)
        return made, {budget: plan(made, budget) for budget in (5, 10)}


@pytest.mark.parametrize("budget", [5, 10])
def test_a_plan_beats_every_named_grid_on_fresh_noise(field, budget):
    made, rows = field
    fresh = starts(1)
    goal = made.ends(made.teacher, fresh)[0]
    best, fixed = rows[budget][0], [row for row in rows[budget] if row.grid in GRIDS]

    def far(row):
        return rms(made.ends(made.of(row).walks(row.times[None])[0], fresh)[0], goal, goal)

    assert all(row.calls <= budget for row in rows[budget]) and {row.solver for row in fixed} >= {"unipc", "heun"}
    assert len(fixed) > 20 and far(best) < min(map(far, fixed))


def test_the_same_inputs_give_the_same_plan(field):
    made, rows = field
    again = plan(made, 5)
    assert [row[:3] for row in again] == [row[:3] for row in rows[5]]
    assert again[0].times.tobytes() == rows[5][0].times.tobytes() and again[0].error == rows[5][0].error
    with pytest.raises(ValueError, match="at least 1 call; got 0"):
        plan(made, 0)


def test_solvers_with_noise_are_asked_where_laws_are_compared(monkeypatch):
    monkeypatch.setattr(planning, "SOLVERS", {name: SOLVERS[name] for name in ("ddim", "dpmpp_3m")})
    made = make_field(exact, PROCESS, starts(0), most=4, quality="sliced_wasserstein")
    rows = {row.rule: row.error for row in plan(made, 4)}
    assert rows["ddim eta=1.0"] != rows["ddim"] and np.isfinite(rows["ddim eta=0.5"])

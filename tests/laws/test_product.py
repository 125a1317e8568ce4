"""Products of processes: each part keeps its law, its loss and its own stream of noise; what cannot be is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import masked, sampling, schedules
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.grids import grid
from diffjax.diffusion.losses import diffusion_loss, loss_at
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.product import product
from diffjax.diffusion.solvers.first_order import ancestral, ddim
from diffjax.diffusion.solvers.tokens import blocks, confidence
from diffjax.diffusion.times import TIMES
from diffjax.diffusion.uniform import uniform
from diffjax.diffusion.weights import WEIGHTS
from diffjax.testbed import analytic
from diffjax.testbed.chains import independent

V, FLOW, COSINE = 3, schedules.flow(), schedules.cosine()
PARTS = {
    "where": gaussian(COSINE, PARAMETERIZATIONS["v"](), WEIGHTS["x0"]()),
    "what": masked.masked(FLOW, masked.masked_elbo, V),
}
WORDS = uniform(FLOW, WEIGHTS["x0"](), V)
BOTH = product(PARTS)

with jax.enable_x64(True):
    POINTS = analytic.gaussian(jnp.asarray([0.7, -0.4]), jnp.asarray([0.3, 1.6]))
    LAWS = jnp.asarray([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.3, 0.3, 0.4], [0.2, 0.2, 0.6]])
    TOKENS = independent(LAWS)
EXACT = {"where": POINTS.denoise(COSINE), "what": TOKENS.denoise(masked.likelihood(FLOW, V))}


def exact(xt, t, cond=None):
    return {name: EXACT[name](xt[name], t) for name in EXACT}


def data(n):
    return {"where": POINTS.draw(jax.random.key(0), n), "what": TOKENS.draw(jax.random.key(1), n)}


def like(n):
    return {"where": jnp.zeros((n, 2)), "what": jnp.zeros((n, 4), int)}


def alone(name):
    """The part as it draws within the product: with keys folded by its place in the order of names."""
    fold = jax.vmap(lambda k: jax.random.fold_in(k, sorted(PARTS).index(name)))
    own = {method: getattr(PARTS[name], method) for method in ("prior", "corrupt", "reverse")}
    return PARTS[name]._replace(**{m: lambda key, *a, rule=rule: rule(fold(key), *a) for m, rule in own.items()})


def test_independent_parts_keep_their_laws():
    n, draw = 10_000, partial(sampling.generate, denoise=exact, solver=ancestral(BOTH), process=BOTH, ts=grid(200))
    x = jax.jit(lambda key: draw(key, like=like(n)))(jax.random.key(3))
    np.testing.assert_allclose(x["where"].mean(axis=0), POINTS.mean, atol=0.05)
    np.testing.assert_allclose(x["where"].var(axis=0) / POINTS.variance, 1, atol=0.06)
    np.testing.assert_allclose(jax.nn.one_hot(x["what"], V).mean(axis=0), LAWS, atol=5 * (0.25 / n) ** 0.5)
    assert np.abs(np.corrcoef(x["where"].T, x["what"].T)[:2, 2:]).max() < 5 / n**0.5


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_sampled_as_it_is_alone_with_its_folded_keys(name):
    def draw(n, denoise, process, like):
        solver, keys = ancestral(process), sampling.row_keys(jax.random.key(3), n)
        return jax.jit(lambda k: sampling.generate(k, denoise, solver, process=process, ts=grid(7), like=like))(keys)

    whole, part = draw(5, exact, BOTH, like(5))[name], draw(5, EXACT[name], alone(name), like(5)[name])
    np.testing.assert_allclose(whole, part, rtol=1e-12)
    np.testing.assert_allclose(whole[:2], draw(2, exact, BOTH, like(2))[name], rtol=1e-12)  # whatever the batch


def test_the_loss_is_the_sum_of_the_parts():
    keys, x0, t = sampling.row_keys(jax.random.key(3), 6), data(6), jnp.linspace(0.2, 0.9, 6)

    @partial(jax.jit, static_argnums=(1, 2))
    def loss(keys, denoise, process, x0):
        return loss_at(keys, denoise, process, t=t, x0=x0, cond=None)

    whole = loss(keys, exact, BOTH, x0)
    parts = [loss(keys, EXACT[name], alone(name), x0[name]) for name in PARTS]
    np.testing.assert_allclose(whole, parts[0] + parts[1], rtol=1e-12)
    drawn = diffusion_loss(jax.random.key(0), exact, BOTH, times=TIMES["uniform"](BOTH.schedule), x0=x0)
    assert drawn.shape == whole.shape == (6,) and (drawn > 0).all()


def test_each_part_may_have_its_own_time_and_its_own_product():
    """A part at time 0 is data, another at time 1 is noise; products nest; a network reads and answers dicts."""
    nested, x0 = product({"scene": BOTH, "word": WORDS}), data(4)
    x0, zero = {"scene": x0, "word": x0["what"]}, jnp.zeros(4)
    t = {"scene": {"where": zero, "what": zero + 1}, "word": zero}
    xt = nested.corrupt(jax.random.key(5), x0, t)
    np.testing.assert_array_equal(xt["scene"]["where"], x0["scene"]["where"])
    np.testing.assert_array_equal(xt["word"], x0["word"])
    assert (xt["scene"]["what"] == V).all()

    xt, t, raw = xt["scene"], jnp.full(4, 0.5), {"where": jnp.ones((4, 2)), "what": jnp.ones((4, 4, V))}
    x_in, level, x0_hat = *BOTH.prepare(xt, t), BOTH.estimate(raw, xt, t)
    for name, part in PARTS.items():
        read = (*part.prepare(xt[name], t), part.estimate(raw[name], xt[name], t))
        jax.tree.map(np.testing.assert_array_equal, (x_in[name], level[name], x0_hat[name]), read)


KEY, ONE, TWO = jax.random.key(0), jnp.ones(()), jnp.zeros((1, 2), int)
REFUSED = {
    r"got \['where'\]": lambda: BOTH.corrupt(KEY, {"where": jnp.zeros((1, 2))}, ONE),
    "got no dict": lambda: BOTH.corrupt(KEY, jnp.zeros((1, 2)), ONE),
    "no one schedule": lambda: ddim(BOTH).plan(grid(3)),
    "products draw from keys": lambda: BOTH.corrupt(lambda like: like, like(1), ONE),
    "tokens .* draw from keys": lambda: WORDS.prior(lambda like: like, TWO, ONE),
    r"expected \(1, 2, 3\)": lambda: PARTS["what"].estimate(jnp.zeros((1, 2, V + 1)), TWO, ONE),
    "one for each token": lambda: WORDS.estimate(jnp.zeros((1, 2, V + 1)), TWO, ONE),
    "has none; sample it with `ancestral`": lambda: confidence(WORDS),
    "at least 1": lambda: blocks(grid(2), 4, 0),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_is_refused_with_a_sentence(sentence):
    with pytest.raises(ValueError, match=sentence):
        REFUSED[sentence]()

"""What is learned beside the network: the schedule between fixed ends, and the uncertainty of each level."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.diffusion import schedules
from diffjax.diffusion.learned import init_monotone, monotone
from diffjax.diffusion.losses import uncertainty
from diffjax.diffusion.weights import elbo
from diffjax.nets.uncertainty import uncertainty_net


def wild(seed, size=3.0):
    """Parameters far from where they start."""
    params = init_monotone(jax.random.key(seed))
    flat, restore = jax.flatten_util.ravel_pytree(params)
    return restore(flat + size * jax.random.normal(jax.random.key(100 + seed), flat.shape))


def descend(loss, params, *, steps):
    """Plain gradient steps."""

    def step(_, p):
        return jax.tree.map(lambda a, g: a - 0.1 * g, p, jax.grad(loss)(p))

    return jax.jit(lambda p: jax.lax.fori_loop(0, steps, step, p))(params)


@pytest.mark.parametrize("seed", range(3))
def test_every_learned_schedule_obeys_the_laws_of_schedules(seed):
    schedule, t = monotone(wild(seed)), jnp.linspace(0, 1, 257)
    schedules.check(schedule)
    alpha, sigma = schedule(t)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-12)
    np.testing.assert_allclose(
        schedules.time_of_log_snr(schedule, schedules.log_snr(schedule, t[1:])), t[1:], atol=1e-9
    )
    ahead, behind = (jnp.stack(schedule(t[1:-1] + h)) for h in (1e-6, -1e-6))
    np.testing.assert_allclose(jnp.stack(schedules.rates(schedule, t[1:-1])), (ahead - behind) / 2e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_only_the_shape_is_learned(seed):
    schedule = monotone(wild(seed), gamma_min=-9.0, gamma_max=4.0)
    assert tuple(map(float, schedule(jnp.zeros(())))) == (1, 0)
    np.testing.assert_allclose(schedules.log_snr(schedule, jnp.asarray([1e-12, 1.0])), [9, -4], rtol=1e-6)
    other = monotone(wild(seed + 1), gamma_min=-9.0, gamma_max=4.0)
    middle = jnp.asarray([0.25, 0.5, 0.75])
    assert jnp.abs(schedules.log_snr(schedule, middle) - schedules.log_snr(other, middle)).max() > 0.5


def test_it_starts_near_the_line_and_takes_any_shape_of_time():
    schedule, t = monotone(init_monotone(jax.random.key(0))), jnp.linspace(0.1, 1, 6)
    np.testing.assert_allclose(schedules.log_snr(schedule, t), schedules.log_snr(schedules.vdm(), t), atol=2.5)
    for shape in ((), (6,), (2, 3)):
        some = t[0] if shape == () else t.reshape(shape)
        np.testing.assert_allclose(schedule(some)[0].ravel(), schedule(t)[0][: some.size], rtol=1e-9)


def test_with_flat_sigmoids_it_is_the_line():
    params = init_monotone(jax.random.key(0)) | {"heights": jnp.full(64, -60.0)}
    np.testing.assert_allclose(
        schedules.log_snr(monotone(params), jnp.linspace(0.1, 1, 6)),
        schedules.log_snr(schedules.vdm(), jnp.linspace(0.1, 1, 6)),
        rtol=1e-9,
    )


def test_single_precision():
    with jax.enable_x64(False):
        schedules.check(monotone(init_monotone(jax.random.key(0))))


def test_the_bound_does_not_feel_the_shape_but_its_scatter_does():
    """Steps down the variance of the bound's integrand leave its mean alone (Kingma et al. 2021, section 5.1).

    The world is N(0, 0.3), whose exact error v sigma^2 / (alpha^2 v + sigma^2) makes the mean known.
    """
    v, t = 0.3, (jnp.arange(1000) + 0.5) / 1000

    def integrand(params):
        schedule = monotone(params, gamma_min=-6.0, gamma_max=4.0)
        alpha, sigma = schedule(t)
        return elbo()(schedule, t) * v * sigma**2 / (alpha**2 * v + sigma**2)

    exact = 0.5 * np.log((1 + v * np.exp(6.0)) / (1 + v * np.exp(-4.0)))

    params = init_monotone(jax.random.key(0), 16)
    before, after = (integrand(p) for p in (params, descend(lambda p: jnp.var(integrand(p)), params, steps=400)))
    assert float(before.mean()) == pytest.approx(exact, rel=1e-4)
    assert float(after.mean()) == pytest.approx(exact, rel=1e-4)
    assert float(after.var()) < 0.25 * float(before.var())


def test_uncertainty_starts_at_nothing():
    net = uncertainty_net()
    params, level = net.init(jax.random.key(0)), jnp.linspace(-1, 1, 5)
    np.testing.assert_array_equal(net.apply(params, level), np.zeros(5))
    np.testing.assert_array_equal(uncertainty(level**2, net.apply(params, level)), level**2)
    assert net.apply(params, level[0]).shape == ()


def test_uncertainty_is_the_formula():
    loss, u = jnp.asarray([0.5, 2.0]), jnp.asarray([-1.0, 0.7])
    np.testing.assert_allclose(uncertainty(loss, u), np.asarray(loss) / np.exp(u) + u, rtol=1e-12)


def test_uncertainty_learns_the_mean_loss_of_every_level():
    """At its best exp(u) is the mean loss, and every level's share of the loss is 1 (Karras et al. 2024, eq. 21-22)."""
    net, level = uncertainty_net(32), jnp.linspace(-1, 1, 64)
    mean = jnp.exp(1.5 * level) * (1.2 + jnp.sin(3 * level))
    loss = mean[None] * jax.random.exponential(jax.random.key(1), (200, 64))
    loss = loss / loss.mean(0)[None] * mean[None]

    def total(params):
        u = net.apply(params, level)
        return jnp.mean(jax.vmap(lambda row: uncertainty(row, u))(loss))

    u = net.apply(descend(total, net.init(jax.random.key(0)), steps=800), level)
    np.testing.assert_allclose(jnp.exp(u), mean, rtol=0.05)
    np.testing.assert_allclose((loss * jnp.exp(-u)[None]).mean(0), 1, rtol=0.05)


def test_single_precision_of_the_net():
    with jax.enable_x64(False):
        net = uncertainty_net()
        assert net.apply(net.init(jax.random.key(0)), jnp.zeros(3)).dtype == jnp.float32

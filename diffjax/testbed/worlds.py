"""The worlds of the command, by name: small laws of data that are hard in different ways."""

import jax.numpy as jnp
import numpy as np

from . import analytic


def mixture() -> analytic.World:
    """Five round modes in the plane, of different weights and widths."""
    angles = 2 * jnp.pi * jnp.arange(5) / 5
    means = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1) * 1.5
    widths = jnp.asarray([0.05, 0.1, 0.2, 0.1, 0.3])
    return analytic.mixture(means, jnp.square(widths)[:, None] + jnp.zeros((5, 2)), jnp.asarray([3.0, 1, 2, 1, 3]))


def correlated() -> analytic.World:
    """A Gaussian in eight dimensions, with standard deviations from 1 to 0.05 along axes of its own."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    return analytic.correlated(jnp.linspace(-1, 1, 8), jnp.asarray((basis * np.geomspace(1, 0.0025, 8)) @ basis.T))


def low_rank() -> analytic.World:
    """A Gaussian on 16 x 16 x 3 elements: ten smooth patterns and a little noise."""
    phases = np.linspace(0, np.pi, 16)
    waves = [np.cos(i * phases)[:, None] * np.cos(j * phases)[None] for i in range(4) for j in range(4) if i + j < 4]
    colours = np.random.default_rng(1).normal(size=(len(waves), 3))
    factors = 0.4 * np.stack(waves)[..., None] * colours[:, None, None, :]
    return analytic.low_rank(jnp.zeros((16, 16, 3)), jnp.asarray(factors), 1e-4)


def empirical() -> analytic.World:
    """200 points on a spiral: a data set learned by heart."""
    r = np.linspace(0.2, 1.5, 200)
    return analytic.empirical(jnp.asarray(np.stack([r * np.cos(5 * r), r * np.sin(5 * r)], axis=1)))


def point() -> analytic.World:
    """One point in the plane."""
    return analytic.point(jnp.asarray([2.0, -3.0]))


WORLDS = {row.__name__: row for row in (mixture, correlated, low_rank, empirical, point)}

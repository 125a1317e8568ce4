"""Loss weights w(t) on |x0_hat - x_0|^2, under uniform t: every loss of the field is one loss under another weight.

With SNR = alpha^2 / sigma^2, the squared error of a prediction F is |x0_hat - x_0|^2 / out^2 (parameterizations.py).
Drawing t from a density p (times.py) under the weight w / p leaves a loss what it is.

    x0             1                                      error of x_0                Ho et al. 2020
    simple         SNR                                    error of eps                Ho et al. 2020, eq. 14
    snr            SNR + 1                                error of v on VP            Salimans & Ho 2022, section 4
    score          alpha^2 / sigma^4                      error of the score          Hyvarinen 2005; Vincent 2011
    velocity       (alpha' - alpha sigma' / sigma)^2      error of dx_t / dt          Lipman et al. 2023
    edm            SNR + 1 / data_std^2                   error of EDM's F            Karras et al. 2022, section 5
    dsm            sigma^2 score = SNR                    NCSN's; `simple` again      Song & Ermon 2019, eq. 6
    likelihood     g^2 score = 2 elbo                     the SDE's diffusion g       Song et al. 2021b, theorem 1
    elbo           -SNR' / 2                              the bound in nats           Kingma et al. 2021, section 5
    elbo_discrete  T (SNR(t - 1/T) - SNR(t)) / 2          the bound of T steps        Kingma et al. 2021, section 4
    sigmoid        elbo sigmoid(bias - log SNR)           fine detail counts less     Kingma & Gao 2023
    min_snr        min(SNR, gamma)                        easy levels count less      Hang et al. 2023, eq. 7
    p2             SNR / (k + SNR)^gamma                  clean levels count less     Choi et al. 2022, section 3
"""

import jax
import jax.numpy as jnp

from .schedules import log_snr, rates
from .types import Weight


def snr_of(schedule, t):
    """alpha^2 / sigma^2 at t: infinite where sigma is 0."""
    alpha, sigma = schedule(t)
    return (alpha / sigma) ** 2


def _fall(schedule, t):
    """(alpha / sigma^2, alpha sigma' / sigma - alpha'): both finite where alpha = 0; their product is -SNR' / 2."""
    t = jnp.minimum(t, 1 - 1e-6)  # at 1 itself alpha' may be infinite, where the product has a limit
    (alpha, sigma), (alpha_rate, sigma_rate) = schedule(t), rates(schedule, t)
    return alpha / sigma**2, alpha * sigma_rate / sigma - alpha_rate


def x0() -> Weight:
    """The plain error of x_0."""
    return lambda schedule, t: jnp.ones_like(t)


def simple() -> Weight:
    """The error of eps: DDPM's L_simple."""
    return snr_of


def snr(offset: float = 1.0) -> Weight:
    """SNR + offset; with offset 1 the error of v."""
    return lambda schedule, t: snr_of(schedule, t) + offset


def score() -> Weight:
    """The error of the score."""
    return lambda schedule, t: snr_of(schedule, t) / schedule(t)[1] ** 2


def velocity() -> Weight:
    """The error of the velocity dx_t/dt: the flow-matching loss."""
    return lambda schedule, t: _fall(schedule, t)[1] ** 2


def edm(data_std: float = 0.5) -> Weight:
    """The error of EDM's unit-variance target."""
    return snr(1 / data_std**2)


def dsm() -> Weight:
    """Denoising score matching over many scales: sigma^2 on the error of the score, so that all scales count alike."""
    return lambda schedule, t: schedule(t)[1] ** 2 * score()(schedule, t)


def likelihood() -> Weight:
    """g^2 on the error of the score: twice the bound, for the KL divergence has it halved."""
    return lambda schedule, t: 2 * elbo()(schedule, t)


def elbo() -> Weight:
    """The diffusion term of the variational bound in continuous time, in nats."""
    return lambda schedule, t: jnp.prod(jnp.stack(_fall(schedule, t)), axis=0)


def elbo_discrete(steps: int = 1000) -> Weight:
    """The diffusion term of the bound of a chain of `steps` steps, at t = k / steps with k >= 2.

    The first step, to SNR = inf, is the decoder's; it has the continuous weight here, so that its level is learned.
    """

    def weight(schedule, t):
        first = t < 1.5 / steps  # t = 1 / steps up to rounding
        drop = snr_of(schedule, jnp.where(first, t, t - 1 / steps)) - snr_of(schedule, t)
        return jnp.where(first, elbo()(schedule, t), 0.5 * steps * drop)

    return weight


def sigmoid(bias: float = 2.0) -> Weight:
    """The bound with levels of log-SNR above `bias` damped; falls with log-SNR, so it is a bound on augmented data."""
    return lambda schedule, t: elbo()(schedule, t) * jax.nn.sigmoid(bias - log_snr(schedule, t))


def min_snr(gamma: float = 5.0) -> Weight:
    """SNR clipped at gamma."""
    return lambda schedule, t: jnp.minimum(snr_of(schedule, t), gamma)


def p2(k: float = 1.0, gamma: float = 1.0) -> Weight:
    """The error of eps over (k + SNR)^gamma: gamma = 0 is `simple`."""
    return lambda schedule, t: snr_of(schedule, t) / (k + snr_of(schedule, t)) ** gamma


_ROWS = x0, simple, snr, score, velocity, edm, dsm, likelihood, elbo, elbo_discrete, sigmoid, min_snr, p2
WEIGHTS = {row.__name__: row for row in _ROWS}

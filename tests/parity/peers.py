"""Two peers, diffusers and k-diffusion, on the same denoiser, grid, start and noise as ours, in double precision.

The peers say float32 in many places: their modules are given a `torch` and a `numpy` in which float32 means float64.
So their tables, grids and steps are double, and nothing else about them is changed.  The noise of every step is ours,
handed to them where they ask for theirs.  Their chains count calls k = 0 ... T - 1; ours has them at t = (k + 1) / T.
"""

import inspect
import sys
import textwrap
import types
import warnings
from contextlib import contextmanager
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.diffusion import sampling
from diffjax.diffusion.gaussian import gaussian
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.schedules import from_betas, time_of_log_snr
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.weights import WEIGHTS
from diffjax.testbed import analytic

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers
    import torch

diffusers.logging.set_verbosity_error()
T = 1000
TOLERANCE = 1e-9  # of states of size 1 to 100, after up to 20 steps in float64; the parity that is promised is 1e-5
ERRORS = {}  # case -> greatest absolute difference, printed at the end of the session

# The world: three blobs in the plane, so that no coordinate and no direction is special.
MEANS = np.array([[-1.5, 0.4], [0.3, 1.2], [1.1, -0.9]])
VARIANCES = np.array([[0.05, 0.2], [0.3, 0.1], [0.15, 0.4]])
WEIGHTS_OF_BLOBS = np.array([0.3, 0.5, 0.2])
POINT = np.array([2.0, -3.0])
torch.set_default_dtype(torch.float64)


class _Named:
    """A module, with a few names that mean something else."""

    def __init__(self, module, **names):
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def _k_sampling():
    """k_diffusion.sampling without the package's own __init__, which wants a dozen packages for training."""
    (path,) = find_spec("k_diffusion").submodule_search_locations
    names = ["torchvision", "torchvision.transforms", "torchvision.transforms.functional"]
    stubs = {name: types.ModuleType(name) for name in names if name not in sys.modules}
    for name, stub in stubs.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, stub)
        sys.modules[name] = stub
    sys.modules["k_diffusion"] = package = types.ModuleType("k_diffusion")
    package.__path__ = [path]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import k_diffusion.sampling as module
    for name in stubs:
        del sys.modules[name]
    return module


k_sampling = _k_sampling()


def mixture(x, alpha, sigma, *, means=MEANS, variances=VARIANCES, weights=WEIGHTS_OF_BLOBS):
    """E[x_0 | alpha x_0 + sigma eps = x] of a mixture of Gaussians, in torch: [B, D]."""
    means, variances, weights = map(torch.as_tensor, (means, variances, weights))
    total = alpha**2 * variances + sigma**2  # [K, D]
    gap = x[:, None] - alpha * means  # [B, K, D]
    log_r = weights.log() - 0.5 * (gap**2 / total + total.log()).sum(-1)
    guesses = means + alpha * variances / total * gap
    return (torch.softmax(log_r, dim=1)[..., None] * guesses).sum(1)


def gaussian_world(x, alpha, sigma):
    """The first blob alone."""
    return mixture(x, alpha, sigma, means=MEANS[:1], variances=VARIANCES[:1], weights=np.ones(1))


def point(x, alpha, sigma):
    """All data at POINT, whatever x is."""
    return torch.as_tensor(POINT).expand(x.shape)


def parabola(x, alpha, sigma):
    """A denoiser that looks at the time alone: x0_hat = p(lambda), of second degree in lambda = log(alpha / sigma)."""
    lam = torch.log(torch.as_tensor(alpha / sigma))
    return (PARABOLA[0] + PARABOLA[1] * lam + PARABOLA[2] * lam**2) + 0 * x


PARABOLA = torch.tensor([[0.3, -1.2], [0.7, 0.4], [-0.2, 0.5]])


def miss_of_a_parabola(y, lam, k):
    """How far steps y [n, B, D] of x / alpha at lam [n], the first excepted, are from dy = k (p(lambda) - y) dlambda.

    Exactly, e^{k lambda} (y - p + p'/k - p''/k^2) is constant.
    """
    lam, (c, b, a) = lam[:, None, None], PARABOLA.numpy()
    still = np.exp(k * lam) * (y - (c + b * lam + a * lam**2) + (b + 2 * a * lam) / k - 2 * a / k**2)
    return float(np.abs(np.diff(still, axis=0)[1:] / np.exp(k * lam[2:])).max())


def worlds():
    """The same three laws as ours: torch function -> World."""
    m, v, w = map(jnp.asarray, (MEANS, VARIANCES, WEIGHTS_OF_BLOBS))
    return {
        mixture: analytic.mixture(m, v, w),
        gaussian_world: analytic.gaussian(m[0], v[0]),
        point: analytic.point(jnp.asarray(POINT)),
    }


# Ours


def straight(sigma_max=100.0):
    """Variance exploding with sigma = sigma_max t, so that any list of sigmas is a grid: ts = sigmas / sigma_max."""
    return lambda t: (jnp.ones_like(t), sigma_max * t)


def process_of(schedule):
    return gaussian(schedule, PARAMETERIZATIONS["x0"](), WEIGHTS["x0"]())


def ours(name, schedule, ts, x, *, world=mixture, **options):
    """Our states at the end of every interval of the grid: [steps, B, D]."""
    return walk(SOLVERS[name](process_of(schedule), **options), worlds()[world].denoise(schedule), ts, x)


def walk(solver, denoise, ts, x, *, seed=1):
    """The same of a solver and a denoiser."""
    ts, key = jnp.asarray(ts), jax.random.key(seed)
    run = jax.jit(lambda key, x: sampling.walk(key, denoise, solver, ts=ts, x=x, record=lambda x: x)[1])
    states = np.asarray(run(key, jnp.asarray(x)))  # after every call
    calls, more = divmod(len(states), len(ts) - 1)  # in an interval
    if not more:
        return states[calls - 1 :: calls]
    ends = np.asarray(solver.plan(ts).end)
    return states[[np.flatnonzero(np.isclose(ends, s))[-1] for s in np.asarray(ts[1:])]]


def noise_of_calls(n, like, *, seed=1):
    """What our walk draws in its calls 1 ... n: [n, B, D]."""
    draw = lambda i: jax.random.normal(jax.random.fold_in(jax.random.key(seed), i), like.shape)  # noqa: E731
    return np.array(jax.vmap(draw)(jnp.arange(1, n + 1)))


def start(n=5, *, scale=1.0, seed=0):
    """Noise of standard deviation `scale`: [n, 2]."""
    return scale * np.array(jax.random.normal(jax.random.key(seed), (n, 2)))


def agree(case, one, two, *, tolerance=TOLERANCE):
    """Record the greatest difference over all states, and refuse more than the tolerance."""
    assert one.shape == two.shape, f"{case}: {one.shape} states beside {two.shape}"
    ERRORS[case] = error = float(np.abs(one - two).max())
    assert error <= tolerance, f"{case}: {error:.2e}, more than {tolerance:.0e}"


# diffusers


def scheduler(name, **options):
    """A scheduler of diffusers in double precision, set up without clipping."""
    row = getattr(diffusers, name)
    module = sys.modules[row.__module__]
    module.torch, module.np = _Named(torch, float32=torch.float64), _Named(np, float32=np.float64)
    if "clip_sample" in row.__init__.__wrapped__.__code__.co_varnames:
        options.setdefault("clip_sample", False)
    return row(**options)


def chain_of(scheduler):
    """Its chain as a schedule of ours."""
    return from_betas(scheduler.betas.numpy())


def times_of_calls(scheduler):
    """The times of its whole timesteps, and 0, data."""
    k = getattr(scheduler, "_timesteps", scheduler.timesteps)  # PNDM's own list has the stages of its steps as well
    return np.append(np.sort(np.asarray(k) + 1)[::-1] / T, 0.0)


def times_of_ratios(schedule, sigmas):
    """The times of sigma / alpha, and 0 where it is 0."""
    sigmas = np.asarray(sigmas)
    inside = time_of_log_snr(schedule, jnp.asarray(-2 * np.log(np.where(sigmas > 0, sigmas, 1))))
    return np.where(sigmas > 0, inside, 0)


def answer(x0, x, alpha, sigma, kind):
    """What a network of this kind would say for x0_hat."""
    return {
        "sample": lambda: x0,
        "epsilon": lambda: (x - alpha * x0) / sigma,
        "velocity": lambda: (x - alpha * x0) / sigma - x0,  # of the straight line
        "edm": lambda: (x0 - 0.25 / (sigma**2 + 0.25) * x) / (sigma * 0.5 / (sigma**2 + 0.25) ** 0.5),
    }[kind]()


def theirs(scheduler, x, level, *, world=mixture, kind="sample", noise=None, before=None, beside=None, **options):
    """A scheduler's states after every call: [calls, B, D].  level(i, k) -> (alpha, sigma) of call i at timestep k.

    before(i) is done before call i; beside(x) is what a network with a learned variance says of it.
    """
    if noise is not None:
        drawn = iter(torch.from_numpy(noise))
        sys.modules[type(scheduler).__module__].randn_tensor = lambda *args, **kwargs: next(drawn)
    states, x = [], torch.from_numpy(x)
    for i, k in enumerate(scheduler.timesteps):
        if before:
            before(i)
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, k)  # it insists; we know the level anyway
        alpha, sigma = level(i, k)
        out = answer(world(x, alpha, sigma), x, alpha, sigma, kind)
        out = out if beside is None else torch.cat([out, beside(x)], dim=1)
        x = scheduler.step(out, k, x, **options)[0]
        states.append(x.numpy())
    return np.stack(states)


def by_chain(scheduler):
    """Levels from the table of the chain, at whole timesteps."""

    def level(i, k):
        kept = scheduler.alphas_cumprod[k]
        return kept**0.5, (1 - kept) ** 0.5

    return level


def by_ratio(scheduler):
    """Levels from sigma / alpha on the circle alpha^2 + sigma^2 = 1."""
    return lambda i, k: scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[i])


def by_sigma(scheduler):
    """Levels of a variance-exploding scheduler."""
    return lambda i, k: (1.0, scheduler.sigmas[i])


# k-diffusion


def k_diffusion(name, x, sigmas, *, world=mixture, noise=None, **options):
    """A sampler of k-diffusion: its states after every step, [steps, B, D]; noise in the order in which it is drawn."""
    states, drawn = [], iter(()) if noise is None else iter(torch.from_numpy(noise))
    sampler = getattr(k_sampling, name)
    if "noise_sampler" in sampler.__wrapped__.__code__.co_varnames:
        options["noise_sampler"] = lambda *interval: next(drawn)
    k_sampling.torch = _Named(torch, randn_like=lambda x: next(drawn))  # where it asks for no noise_sampler
    denoise = lambda x, sigma: world(x, 1.0, sigma[0])  # noqa: E731
    see = lambda seen: states.append(seen["x"].numpy())  # noqa: E731
    final = sampler(denoise, torch.from_numpy(x), torch.as_tensor(sigmas), callback=see, disable=True, **options)
    return np.stack([*states[1:], final.numpy()])


@contextmanager
def mended(owner, name, *corrections):
    """In which a function of a peer has every (snippet, replacement) of its text made, wherever the snippet stands."""
    function = getattr(owner, name)
    text, local = textwrap.dedent(inspect.getsource(function)), {}
    for snippet, replacement in corrections:
        assert snippet in text, f"{name} has changed: it no longer says {snippet!r}"
        text = text.replace(snippet, replacement)
    exec(compile(text, name, "exec"), sys.modules[function.__module__].__dict__, local)
    setattr(owner, name, local[name])
    try:
        yield
    finally:
        setattr(owner, name, function)

"""Sampling from a model: rows, devices, compilations."""

import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import training
from diffjax.data import Source
from diffjax.errors import InputError
from diffjax.experiment import build
from diffjax.model import make_sample, model_of, side_by_side
from diffjax.sampler import described, sampler
from diffjax.training import batch_sharding, make_mesh, replicated
from tests.test_experiment import config


@pytest.fixture(scope="module")
def experiment():
    return build(config(net=dict(name="mlp", width=16, depth=2), sampler=dict(solver="ancestral", steps=4, num=8)))


@pytest.fixture(scope="module")
def params(experiment):
    """Random, so that labels matter: the last layer starts at zero."""
    leaves, tree = jax.tree.flatten(experiment.net.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        tree, [a + 0.2 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="module")
def draw(experiment, params):
    sample = make_sample(experiment)
    return lambda seed, n, **options: sample(params, jax.random.key(seed), n, **options)


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"solver": "dpmpp_2m"}])
def test_a_sample_depends_on_its_key_and_number_alone(draw, options):
    labels = [0, 1, 1]
    whole = draw(3, 20, labels=labels, **options)
    np.testing.assert_allclose(draw(3, 5, labels=labels, **options), whole[:5], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(draw(3, 20, labels=labels, batch=8, **options), whole, rtol=1e-5, atol=1e-6)
    assert not np.allclose(draw(4, 20, labels=labels, **options), whole)
    assert whole.dtype == np.float32 and whole.shape == (20, 2) and len(np.unique(whole)) == 40


def test_one_device_draws_what_eight_do(experiment, params, draw):
    run = jax.jit(sampler(experiment, dict(name="ancestral"), guided=False))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.arange(8))
    ts, labels = jnp.linspace(1, 0, 5), jnp.asarray([0, 1] * 4, jnp.int32)
    one = run(params, keys, ts, labels, jnp.float32(1), {})
    assert len(one.sharding.device_set) == 1 and jax.device_count() == 8
    np.testing.assert_allclose(draw(3, 8, labels=[0, 1]), one, rtol=1e-5, atol=1e-6)


def test_a_stream_is_the_samples_in_pieces(experiment, params, draw):
    pieces = list(model_of(experiment, params, 1).stream(jax.random.key(3), 20, labels=[0, 1, 1], batch=8))
    assert [len(piece) for piece in pieces] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate(pieces), draw(3, 20, labels=[0, 1, 1], batch=8))


def test_on_one_cpu_two_batches_are_drawn_at_a_time(experiment, params, draw, monkeypatch):
    together, waiting, fetch = set(), threading.Barrier(2, timeout=60), training.to_host
    one = make_mesh(devices=jax.devices()[:1])

    def to_host(array):
        together.add(threading.get_ident())
        waiting.wait()  # which only two at a time can pass
        return fetch(array)

    with monkeypatch.context() as patch:
        patch.setattr(training, "make_mesh", lambda: one)
        patch.setattr(training, "to_host", to_host)
        x = make_sample(experiment)(params, jax.random.key(3), 20, labels=[0, 1, 1], batch=5)
    np.testing.assert_allclose(x, draw(3, 20, labels=[0, 1, 1]), rtol=1e-5, atol=1e-6)
    assert len(together) == 2


def test_side_by_side_keeps_the_order_runs_ahead_by_as_many_and_raises_what_is_raised():
    asked = []

    def items():
        for i in range(6):
            asked.append(i)
            yield i, 2

    results = side_by_side(pow, items(), workers=3)
    assert next(results) == 0 and asked == [0, 1, 2]
    assert list(results) == [1, 4, 9, 16, 25]
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(divmod, [(1, 1), (1, 0), (1, 2)], workers=2))


def test_calls_are_those_that_the_network_gets(experiment):
    made = {name: described(experiment, solver=name, steps=7)["calls"] for name in ("ddim", "heun", "dpmpp_2m", "rk45")}
    assert made == {"ddim": 7, "heun": 13, "dpmpp_2m": 7, "rk45": None}
    assert described(experiment)["calls"] == 4 and described(experiment, guidance=2.0)["calls"] == 8
    assert described(experiment, solver="ddim", eta=0.5)["options"] == {"eta": 0.5}


def test_labels_cycle_and_matter(draw):
    both, ones = draw(0, 6, labels=[0, 1]), draw(0, 6, labels=[1])
    np.testing.assert_allclose(both[1::2], ones[1::2], rtol=1e-5, atol=1e-6)
    assert not np.allclose(both[::2], ones[::2])


def test_scale_one_is_no_guidance_and_others_matter(draw):
    plain = draw(0, 8, labels=[0, 1])
    np.testing.assert_allclose(draw(0, 8, labels=[0, 1], guidance=1.0), plain, rtol=1e-4, atol=1e-5)
    assert not np.allclose(draw(0, 8, labels=[0, 1], guidance=3.0), plain, atol=1e-2)


def test_seed_labels_and_guidance_compile_nothing(experiment, params):
    traces = []

    def counting(*arguments, **options):
        traces.append(1)
        return experiment.denoise(*arguments, **options)

    sample = make_sample(experiment._replace(denoise=counting))

    def draw(seed, **options):
        return sample(params, jax.random.key(seed), 8, **options)

    draw(0, labels=[0])
    once = len(traces)
    draw(1, labels=[1])
    draw(2, labels=[0, 1])
    assert len(traces) == once <= 2  # a scan traces its body once or twice
    draw(0, labels=[0], guidance=2.0)
    guided = len(traces) - once
    draw(1, labels=[1], guidance=0.5)
    draw(2, labels=[0, 1], guidance=7.0)
    assert len(traces) - once == guided <= 2


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("solver", ["ancestral", "dpmpp_2m", "heun"])
def test_a_batch_sharded_sampler_exchanges_nothing(experiment, params, solver, guided):
    mesh = make_mesh()
    rows, same = batch_sharding(mesh), replicated(mesh)
    run = jax.jit(
        sampler(experiment, dict(name=solver), guided=guided),
        in_shardings=(None, rows, same, rows, same, same),
        out_shardings=rows,
    )
    keys = jax.random.split(jax.random.key(0), 16)
    arguments = (params, keys, jnp.linspace(1, 0, 5), jnp.zeros(16, jnp.int32), jnp.float32(2), {})
    program = run.lower(*arguments).compile().as_text()
    assert not re.findall(r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter", program)
    assert "f32[2,2]" in program or "f32[4,2]" in program  # rows of one device only


def test_a_program_and_its_memory_do_not_grow_with_its_steps(experiment):
    """But for its plan, of a few numbers a step: a trajectory kept by mistake would be 8192 numbers a step."""
    chosen = config(net=dict(name="mlp", width=16, depth=2))
    wide = build(chosen, source=Source(lambda indices: {}, 10, (1024,), 2))
    params = jax.eval_shape(wide.net.init, jax.random.key(0))

    def cost(steps):
        run = jax.jit(sampler(wide, dict(name="ancestral"), guided=False))
        ts = jax.ShapeDtypeStruct((steps + 1,), jnp.float32)
        keys = jax.random.split(jax.random.key(0), 8)
        lowered = run.lower(params, keys, ts, jnp.zeros(8, jnp.int32), jnp.float32(1), {})
        return len(lowered.as_text()), lowered.compile().memory_analysis().temp_size_in_bytes

    (short, few), (long, many) = cost(10), cost(1000)
    assert long <= 1.01 * short and many - few <= 100 * 990 < 0.01 * 4 * 8192 * 990


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(labels=[0, 2]), "labels must be whole numbers in 0..1; got \\[0, 2\\]"),
        (dict(labels=[-1]), "labels must be"),
        (dict(labels=[0.5]), "labels must be"),
        (dict(batch=0), "batch must be at least 1; got 4 and 0"),
        (dict(steps=0), "steps must be at least 1; got 0"),
        (dict(start=1.5), "within \\[0, 1\\]"),
        (dict(guidance=2.0), "guidance needs labels"),
        (dict(guidance=float("nan"), labels=[0]), "guidance must be a finite number; got nan"),
        (dict(guidance=-float("inf"), labels=[0]), "guidance must be a finite number; got -inf"),
        (dict(solver="heum"), "did you mean 'heun'"),
    ],
)
def test_bad_requests(draw, options, words):
    with pytest.raises(InputError, match=words):
        draw(0, 4, **options)


def test_no_samples_no_null_class(draw, params):
    with pytest.raises(InputError, match="at least 1; got 0"):
        draw(0, 0)
    without = build(config(net=dict(name="mlp", width=16, depth=2), label_dropout=0.0))
    with pytest.raises(InputError, match="label_dropout > 0"):
        make_sample(without)(params, jax.random.key(0), 4, labels=[0], guidance=2.0)


def test_a_learned_variance_is_that_of_ancestral_sampling_and_others_bring_their_own():
    """The network's second half decides how noisy ancestral steps are, and nothing else."""
    parts = dict(schedule="discrete", parameterization="v", weight="simple", process="learned_variance")
    net = dict(name="dit", width=8, depth=1, heads=1, patch=1, outputs=2, positions="rotary")
    chosen = config(**{part: dict(name=name) for part, name in parts.items()}, net=net)
    shape = Source(lambda indices: {}, 10, (4, 1), 2)
    experiment = build(chosen, source=shape)
    params = experiment.net.init(jax.random.key(0))
    sample = make_sample(experiment)

    def draw(share, **options):
        """The two fixed variances mixed by -1 (small) ... 1 (large)."""
        bias = params["head"]["bias"].at[1].set(share)
        turned = params | {"head": params["head"] | {"bias": bias}}
        return sample(turned, jax.random.key(1), 64, steps=4, **options)

    # v = 0: every step shrinks x_t and adds noise, whose variance is the one that is learned
    small, large = draw(-1.0, solver="ancestral"), draw(1.0, solver="ancestral")
    assert large.std() > 1.02 * small.std()
    plain = make_sample(build(chosen | {"process": dict(name="gaussian"), "net": net | {"outputs": 1}}, source=shape))
    half = params | {"head": jax.tree.map(lambda a: a[..., :1], params["head"])}
    for options in (dict(solver="ddim"), dict(solver="ancestral", labels=[1], guidance=2.0)):
        wanted = plain(half, jax.random.key(1), 64, steps=4, **options)
        for share in (-1.0, 1.0):
            np.testing.assert_allclose(draw(share, **options), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        small, plain(half, jax.random.key(1), 64, steps=4, solver="ancestral"), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(InputError, match="'learned_variance' needs net.outputs=2.*got 1"):
        build(chosen | {"net": net | {"outputs": 1}}, source=shape)

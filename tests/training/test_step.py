"""The step is what it says, on any mesh; its state is donated, and resuming changes no bit."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from diffjax.diffusion import gaussian, parameterizations, schedules, times, weights
from diffjax.diffusion.denoiser import denoiser
from diffjax.diffusion.losses import levels, loss_at
from diffjax.diffusion.types import fold
from diffjax.nets import SPLITS
from diffjax.nets.blocks import Attention, ResBlock, conv
from diffjax.nets.design import Design
from diffjax.nets.embeddings import Embedding
from diffjax.nets.functional import functional
from diffjax.training import (
    compile_once,
    compile_step,
    initial,
    make_mesh,
    make_step,
    sharding,
    stacked,
    stacked_sharding,
    to_devices,
)
from diffjax.training.cost import collectives
from diffjax.training.ema import warmed
from diffjax.training.fingerprints import fingerprint
from diffjax.training.optimizers import clipped
from diffjax.training.step import by_level

OPTIMIZER = clipped(optax.adamw(1e-2), norm=1.0)
AVERAGE = warmed(0.9)
PROCESS = gaussian.gaussian(schedules.cosine(), parameterizations.v(), weights.snr())


class Tiny(nnx.Module):
    """A residual block and attention between two convolutions: all that a UNet is made of, and soon compiled."""

    def __init__(self, rngs):
        options = dict(dtype=jnp.float32, rngs=rngs)
        self.embed, self.stem, self.head = Embedding(16, 3, **options), conv(1, 8, **options), conv(8, 1, **options)
        design = Design(width=4, dropout=0.1, head_width=4)  # blocks read four times the width
        self.block = ResBlock(8, 8, design, rank=2, rngs=rngs)
        self.attention = Attention(8, design, rngs=rngs)

    def __call__(self, x, level, cond=None, *, key=None):
        return self.head(self.attention(self.block(self.stem(x), self.embed(level, cond), key=key)))


NET = functional(Tiny)


def draw(key, batch):
    t, keys = levels(key, times.uniform(PROCESS.schedule), len(batch["x"]))
    return batch | {"t": t, "key": keys}


def diffusion(params, rows):
    noise, dropout = (fold(rows["key"], i) for i in range(2))
    rule = lambda xt, t, cond: denoiser(PROCESS, NET.apply)(params, xt, t, cond, key=dropout)  # noqa: E731
    return loss_at(noise, rule, PROCESS, t=rows["t"], x0=rows["x"], cond=rows["label"])


def linear(params, rows):
    noise = jax.vmap(lambda key: jax.random.normal(key, (8,)))(rows["key"])
    return jnp.sum((rows["x"] @ params["kernel"] + params["bias"][None, :] - noise @ params["kernel"]) ** 2, axis=1)


def random_params(abstract):
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * draw.standard_normal(leaf.shape), leaf.dtype), abstract)


LINEAR = random_params(
    {"kernel": jax.ShapeDtypeStruct((8, 8), "float32"), "bias": jax.ShapeDtypeStruct((8,), "float32")}
)
TINY = random_params(jax.eval_shape(NET.init, jax.random.key(0)))


def batches(n, shape, first=0):
    for i in range(first, first + n):
        yield {"x": np.random.default_rng(i).standard_normal((16, *shape), np.float32), "label": np.arange(16) % 4}


def mesh_of(data, fsdp, tensor=1):
    return make_mesh(fsdp, tensor, jax.devices()[: data * fsdp * tensor])


def call(some, mesh):
    """What a call is given: these batches."""
    return to_devices(stacked(some), stacked_sharding(mesh))


def unit(params):
    """Every column of the kernel of length 1; the rest is free."""
    return params | {"kernel": params["kernel"] / jnp.linalg.norm(params["kernel"], axis=0, keepdims=True)}


def compiled(loss, params, mesh, parts=1, offload=False, project=lambda params: params):
    init = lambda key: initial(lambda _: params, OPTIMIZER, AVERAGE, key)  # noqa: E731
    step = make_step(draw, loss, OPTIMIZER, AVERAGE, parts=parts, project=project)
    return compile_step(step, init, mesh, overrides=SPLITS["unet"], offload=offload)


def bits(state):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))]


@pytest.fixture
def optimised():
    """As programs run: it is fusion that might change digits."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def trained():
    """Three steps of the tiny network on one device."""
    return train_tiny(mesh_of(1, 1))


def train_tiny(mesh, parts=1, offload=False):
    init, step, target = compiled(diffusion, TINY, mesh, parts, offload)
    state, losses = init(jax.random.key(0)), []
    for batch in batches(3, (8, 8, 1)):
        state, metrics = step(state, call([batch], mesh))
        losses.append(float(metrics["loss"][0]))
    return SimpleNamespace(losses=losses, state=state, target=target)


MESHES = [shape for shape in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(shape) in (2, 4, 8)]
PARTS = [((1, 1, 1), 2), ((1, 1, 1), 4), ((2, 2, 2), 2), ((4, 1, 1), 4)]


@pytest.mark.parametrize("shape, parts", [*((shape, 1) for shape in MESHES), *PARTS])
def test_losses_are_the_same_on_every_mesh(shape, parts, trained, monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 64)
    found = train_tiny(mesh_of(*shape), parts)
    np.testing.assert_allclose(found.losses, trained.losses, rtol=1e-5)
    assert abs(trained.losses[0] - trained.losses[2]) > 1e-3 * trained.losses[0]
    for leaf, abstract in zip(jax.tree.leaves(found.state), jax.tree.leaves(found.target), strict=True):
        assert leaf.sharding == abstract.sharding
    for tree in (found.state.params, found.state.ema[0], optax.tree.get(found.state.opt, "mu")):
        kernel = tree["block"]["conv1"]["kernel"]
        assert kernel.addressable_data(0).size * shape[1] * shape[2] == kernel.size


def test_the_optimizers_state_may_wait_in_the_memory_of_the_host(trained):
    found = train_tiny(mesh_of(1, 1), offload=True)
    assert found.losses == trained.losses and bits(found.state) == bits(trained.state)
    kinds = {leaf.ndim > 0: leaf.sharding.memory_kind for leaf in jax.tree.leaves(found.state.opt)}
    assert kinds == {True: "pinned_host", False: "device"}
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(found.state.params)} == {"device"}
    assert fingerprint(found.state) == fingerprint(trained.state)


def test_one_step_is_the_formula():
    mesh = mesh_of(1, 1)
    init, step, _ = compiled(linear, LINEAR, mesh)
    (batch,) = batches(1, (8,))
    before = init(jax.random.key(7))
    before = before._replace(step=before.step + 5, ema=(jax.tree.map(lambda leaf: leaf + 1, before.params),))
    rows = draw(jax.random.fold_in(before.key, 5), batch)

    @jax.jit
    def formula(state, batch):
        value, grads = jax.value_and_grad(lambda params: jnp.mean(linear(params, rows)))(state.params)
        updates, opt = OPTIMIZER.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        kept = 6 / 15  # (1 + 5) / (10 + 5), less than the decay
        average = jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, state.ema[0], params)
        return value, grads, opt, params, average

    value, grads, opt, params, average = formula(before, batch)
    before_key = np.asarray(jax.random.key_data(before.key))

    after, metrics = step(before, call([batch], mesh))
    for found, expected in ((after.params, params), (after.opt, opt), (after.ema[0], average)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, expected)
    assert int(after.step) == 6 and np.array_equal(jax.random.key_data(after.key), before_key)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads)))
    np.testing.assert_allclose([metrics["loss"][0], metrics["grad_norm"][0]], [value, norm], rtol=1e-5)


def test_losses_are_parted_by_level():
    t, losses = jnp.asarray([0.0, 0.1, 0.13, 0.99, 1.0]), jnp.asarray([1.0, 2.0, jnp.nan, 8.0, 16.0])
    sums, counts = by_level(t, losses)
    np.testing.assert_array_equal(counts, [2, 1, 0, 0, 0, 0, 0, 2])
    np.testing.assert_array_equal(sums, [3, np.nan, 0, 0, 0, 0, 0, 24])


def test_the_average_starts_as_a_copy_and_keys_differ():
    state = initial(lambda key: {"kernel": jax.random.normal(key, (2, 2))}, OPTIMIZER, AVERAGE, jax.random.key(0))
    np.testing.assert_array_equal(state.ema[0]["kernel"], state.params["kernel"])
    assert state.ema[0]["kernel"] is not state.params["kernel"] and int(state.step) == 0
    other = initial(lambda key: {"kernel": jax.random.normal(key, (2, 2))}, OPTIMIZER, AVERAGE, jax.random.key(1))
    assert not np.array_equal(other.params["kernel"], state.params["kernel"])
    assert not np.array_equal(jax.random.key_data(other.key), jax.random.key_data(state.key))


@pytest.mark.parametrize("fsdp", [1, 4])
def test_the_state_is_donated_whole_and_the_step_is_compiled_once(fsdp, monkeypatch, caplog):
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 64)
    mesh = make_mesh(fsdp)
    init, step, target = compiled(linear, LINEAR, mesh)
    state = init(jax.random.key(0))
    with jax.log_compiles():
        for batch in batches(5, (8,)):
            placed = call([batch], mesh)
            with jax.transfer_guard("disallow_explicit"):  # nothing comes from the host, and nothing goes to it
                before, (state, _) = state, step(state, placed)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    compilations = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")]
    assert len(compilations) == 1 and "step" in compilations[0]
    here = [leaf.addressable_data(0) for leaf in jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))]
    assert step.lower(target, placed).compile().memory_analysis().alias_size_in_bytes == sum(x.nbytes for x in here)


def test_the_state_is_born_where_it_is_restored_to(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 32)
    states = {}
    for shape in ((1, 1), (2, 4)):

        def init(key):
            return initial(lambda key: {"kernel": jax.random.normal(key, (8, 12))}, OPTIMIZER, AVERAGE, key)

        born, _, target = compile_step(make_step(draw, linear, OPTIMIZER, AVERAGE), init, mesh_of(*shape))
        states[shape] = born(jax.random.key(0))
        for leaf, abstract in zip(jax.tree.leaves(states[shape]), jax.tree.leaves(target), strict=True):
            assert (leaf.shape, leaf.dtype, leaf.sharding) == (abstract.shape, abstract.dtype, abstract.sharding)
    sharded = states[2, 4]
    for leaf in (sharded.params["kernel"], sharded.ema[0]["kernel"], optax.tree.get(sharded.opt, "mu")["kernel"]):
        assert leaf.addressable_shards[0].data.shape == (8, 3)
    assert bits(states[1, 1]) == bits(sharded)  # the draw does not depend on the devices


def test_params_are_put_back_after_every_update():
    """The step with a projection is the step without, projected; the averages see what was projected."""
    batch = {name: jnp.asarray(rows) for name, rows in next(batches(1, (8,))).items()}
    before = initial(lambda _: LINEAR, OPTIMIZER, AVERAGE, jax.random.key(0))
    free, held = (
        jax.jit(make_step(draw, linear, OPTIMIZER, AVERAGE, **options))(before, batch)[0]
        for options in ({}, {"project": unit})
    )
    lengths = [jnp.linalg.norm(state.params["kernel"], axis=0) for state in (free, held)]
    assert jnp.abs(lengths[0] - 1).min() > 1e-2 and jnp.abs(lengths[1] - 1).max() < 1e-6
    average = AVERAGE.update(before.ema, unit(free.params), before.step)
    for got, wanted in ((held.params, unit(free.params)), (held.ema, average), (held.opt, free.opt)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), got, wanted)


@pytest.mark.parametrize("project", [lambda params: params, unit], ids=["free", "projected"])
def test_continuing_after_k_steps_changes_no_bit(project):
    mesh = make_mesh(2)
    init, step, target = compiled(linear, LINEAR, mesh, project=project)

    def advance(state, first, n):
        for batch in batches(n, (8,), first):
            state, _ = step(state, call([batch], mesh))
        return state

    half = advance(init(jax.random.key(0)), 0, 3)
    plain = jax.device_get(half._replace(key=jax.random.key_data(half.key)))  # as if through a file
    back = plain._replace(key=jax.random.wrap_key_data(jnp.asarray(plain.key)))
    placed = jax.tree.map(lambda leaf, abstract: jax.device_put(leaf, abstract.sharding), back, target)
    whole = advance(init(jax.random.key(0)), 0, 6)
    assert bits(advance(placed, 3, 3)) == bits(whole)
    assert bits(advance(init(jax.random.key(1)), 0, 6)) != bits(whole)


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("project", [lambda params: params, unit], ids=["free", "projected"])
def test_a_call_of_many_steps_is_as_many_calls(shape, project, optimised, monkeypatch):
    """The same bits of state and metrics, however six steps are parted; and nothing is sent that one step sends not."""
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 32)
    mesh = mesh_of(*shape)
    init, steps, target = compiled(linear, LINEAR, mesh, project=project)
    ends, sent = {}, {}
    for lengths in ((1,) * 6, (3, 3), (3, 1, 1, 1), (1, 3, 1, 1)):
        state, stream, seen = init(jax.random.key(0)), batches(6, (8,)), []
        for n in lengths:
            placed = call([next(stream) for _ in range(n)], mesh)
            state, metrics = steps(state, placed)
            seen += [jax.tree.map(lambda a, i=i: np.asarray(a[i]).tobytes(), metrics) for i in range(n)]
        ends[lengths] = bits(state), seen
        sent[lengths[-1]] = collectives(steps.lower(target, placed).compile())
    assert int(state.step) == 6 and all(end == ends[(1,) * 6] for end in ends.values())
    assert {kind: sum(sizes) for kind, sizes in sent[3].items()} == {kind: sum(s) for kind, s in sent[1].items()}


def test_what_is_compiled_to_run_once_gives_the_same_values(monkeypatch):
    plain = jax.jit(NET.init, compiler_options={"xla_backend_optimization_level": 3})(jax.random.key(3))
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # of the suite, whose programs all run a few times
    jax.tree.map(np.testing.assert_array_equal, compile_once(NET.init)(jax.random.key(3)), plain)

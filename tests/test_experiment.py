"""From configs to functions: what is wrong with a config is a sentence, before anything compiles."""

import copy

import jax
import numpy as np
import pytest

from configs import cifar10, digits, dit_xl_256, edm2_xs_512, imagenet64, toy_moons
from diffjax.data import DATASETS
from diffjax.diffusion.parameterizations import PARAMETERIZATIONS
from diffjax.diffusion.schedules import SCHEDULES, ends_in_pure_noise
from diffjax.diffusion.solvers import SOLVERS
from diffjax.diffusion.times import TIMES
from diffjax.diffusion.weights import WEIGHTS
from diffjax.errors import InputError
from diffjax.experiment import build, pick
from diffjax.nets import NETS
from diffjax.program import abstract_call, mesh_of, program
from diffjax.sampler import knobs_of
from diffjax.training.optimizers import OPTIMIZERS

PARTS = {
    "schedule": SCHEDULES,
    "parameterization": PARAMETERIZATIONS,
    "weight": WEIGHTS,
    "times": TIMES,
    "net": NETS,
    "data": DATASETS,
    "optimizer": OPTIMIZERS,
}


def config(**changes):
    """The toy config, with `part__key=value` changes."""
    plain = copy.deepcopy(toy_moons.get_config().to_dict())
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if key:
            plain[part][key] = value
        else:
            plain[part] = value
    return plain


def refused(words):
    return pytest.raises(InputError, match=words)


@pytest.mark.parametrize("part, table", PARTS.items())
def test_an_unknown_row_is_named_with_its_nearest(part, table):
    first = sorted(table)[0]
    with refused(f"no {part} '{first}x'; did you mean '.*'\\? known: {first}"):
        build(config(**{f"{part}__name": first + "x"}))


@pytest.mark.parametrize("part", PARTS)
def test_a_misspelt_keyword_is_named(part):
    with refused(f"no option 'zzz' of {part} "):
        build(config(**{f"{part}__zzz": 1}))
    with refused("did you mean 'width'"):
        build(config(net__widht=1))


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(net__width="wide"), "net.width must be of type int; got 'wide'"),
        (dict(net__width=True), "net.width must be of type int"),
        (dict(steps=0), "steps must be a whole number of at least 1; got 0"),
        (dict(steps=2.5), "steps must be of type int; got 2.5"),
        (dict(seed="a"), "seed must be of type int"),
        (dict(seed=2**40), "seed must lie in"),
        (dict(schedule="cosine"), "schedule must be a dict of options"),
        (dict(net__name=["mlp"]), "no net '.*mlp.*'"),
        (dict(schedule=dict(name="edm", rho=0.0)), "schedule 'edm': float division by zero"),
        (dict(schedule=dict(name="sigmoid", tau=0.0)), "schedule 'sigmoid': float division by zero"),
        (dict(schedule=dict(name="discrete", steps=0)), "schedule 'discrete' .*must have noise at t = 1"),
        (dict(every__log=1.5), "every.log must be of type int"),
        (dict(every__log=-1), "every.log must be a whole number of at least 0"),
        (dict(mesh__fsdp="x"), "mesh.fsdp must be of type int"),
        (dict(data__range=3), "data.range must be of type tuple"),
        (dict(data__range=(1, 2, 3)), "data.range must rise"),
        (dict(optimizer__learning_rate="fast"), "optimizer.learning_rate must be of type float"),
        (dict(optimizer__clip=-1.0), "at least 0"),
        (dict(batch_size=-4), "batch_size must be"),
        (dict(ema=dict(name="warmed", decay=1.5), every__snapshot=0), "ema 'warmed': decay must lie in"),
        (dict(ema=dict(name="power", stds=(0.5,))), "relative standard deviation"),
        (dict(ema=dict(name="warmed", decay=0.9)), "every.snapshot=200 needs power averages"),
        (dict(watch__spike=0.5), "watch.spike must be 0, or more than 1"),
        (dict(steps_per_call=0), "steps_per_call must be a whole number of at least 1"),
        (dict(steps_per_call=101), "steps_per_call=101 would never be reached, for something is due every 100 steps"),
        (dict(memory__accumulate=0), "memory.accumulate must be a whole number"),
        (dict(memory__remat="dots"), "net 'mlp' has no blocks to compute again"),
        (dict(label_dropout=-0.1), "label_dropout must lie in"),
        (dict(data__range=(1.0, -1.0)), "data.range must rise"),
        (dict(data__law="moon"), "no law 'moon' of toy; did you mean 'moons'"),
        (dict(data__flip=True), "flip"),
        (dict(every__evaluat=3), "no option 'evaluat' of every; did you mean 'evaluate'"),
        (dict(sampels=3), "no config entry 'sampels'; did you mean 'sampler'"),
        (dict(optimizer__decay="cosin"), "did you mean 'cosine'"),
        (dict(optimizer__decay=3), "no optimizer.decay '3'"),
        (dict(optimizer__decay=dict(after=9)), "optimizer.decay has no name"),
        (dict(optimizer__decay=dict(name="inverse_sqrt", after=0)), "after must be at least 1 step; got 0"),
        (dict(net=dict(name="unet")), "needs data of shape"),
        (dict(sampler__solver="heum"), "no solver 'heum'; did you mean 'heun'"),
        (dict(sampler__steps=0), "sampler.steps must be a whole number"),
    ],
)
def test_bad_values(changes, words):
    from diffjax.experiment import batches

    with refused(words):
        batches(build(config(**changes)))


def test_a_missing_part_is_named():
    for part in ("ema", "schedule", "sampler"):
        plain = config()
        del plain[part]
        with refused(f"the config has no '{part}'"):
            build(plain)
    plain = config()
    del plain["optimizer"]["learning_rate"]
    with refused("learning_rate"):
        build(plain)


def test_a_config_from_before_a_part_was_there_has_its_default():
    plain = config()
    del plain["steps_per_call"]
    assert build(plain).config["steps_per_call"] == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_eps_is_refused_exactly_where_nothing_of_the_data_is_left(name):
    plain = config(schedule=dict(name=name), parameterization=dict(name="eps"), weight=dict(name="simple"))
    if ends_in_pure_noise(SCHEDULES[name]()):
        with refused(f"'eps' with schedule '{name}': this prediction is ill-posed"):
            build(plain)
    else:
        build(plain)


def test_a_size_that_does_not_halve():
    plain = digits.get_config().to_dict()
    plain["net"]["multipliers"] = (1, 2, 2, 2, 2)
    with refused("8 x 8 cannot be halved 4 times: every side must be divisible by 16"):
        build(plain)


def test_solver_options():
    experiment = build(config())
    with refused("no option 'eta' of solver 'heun'"):
        knobs_of(experiment, dict(name="heun", eta=0.5))
    with refused("eta must lie in"):
        knobs_of(experiment, dict(name="ddim", eta=2.0))
    with refused("solver.eta must be of type float"):
        knobs_of(experiment, dict(name="ddim", eta="much"))
    with refused("euler_maruyama needs alpha"):
        knobs_of(experiment, dict(name="euler_maruyama"))
    for name in ("euler", "heun", "dpmpp_2m"):
        assert knobs_of(experiment, dict(name=name, eta=0)) == (dict(name=name), {})
    with refused("no option 'eta' of solver 'ancestral'"):
        knobs_of(experiment, dict(name="ancestral", eta=0))


def test_numbers_of_a_solver_are_knobs_and_the_rest_is_not():
    """What is traced at run time, and what makes another program: whole numbers, and no noise at all."""
    experiment = build(config())
    assert knobs_of(experiment, dict(name="ddim", eta=1)) == (dict(name="ddim"), {"eta": 1.0})
    assert knobs_of(experiment, dict(name="ddim", eta=0)) == (dict(name="ddim", eta=0), {})
    assert knobs_of(experiment, dict(name="heun", churn=9.0)) == (dict(name="heun"), {"churn": 9.0})
    assert knobs_of(experiment, dict(name="unipc", order=2)) == (dict(name="unipc", order=2), {})


def test_pick_calls_the_row_with_its_keywords():
    alpha, _ = pick(SCHEDULES, "schedule", dict(name="linear", beta_min=1.0, beta_max=1.0))(np.float32(1.0))
    assert float(alpha) == pytest.approx(np.exp(-0.5))
    assert {name for name in SOLVERS} >= {"ddim"}


@pytest.mark.parametrize("module", [toy_moons, digits])
def test_the_configs_build(module):
    experiment = build(module.get_config().to_dict())
    assert experiment.source.size > 1000 and experiment.heldout.size > 100


@pytest.mark.parametrize(
    "module, shape, classes",
    [
        (cifar10, (32, 32, 3), 10),
        (imagenet64, (64, 64, 3), 1000),
        (dit_xl_256, (32, 32, 4), 1000),
        (edm2_xs_512, (64, 64, 4), 1000),
    ],
)
def test_the_large_configs_build_on_data_of_their_shape(module, shape, classes, tmp_path):
    """With arrays in place of the data set; and the network is as large as the config says."""
    np.savez(tmp_path / "x.npz", x=np.zeros((4, *shape), np.uint8), label=np.arange(4))
    plain = module.get_config().to_dict()
    kept = {key: plain["data"][key] for key in ("flip", "skip", "range")}
    plain["data"] = dict(name="npz", path=str(tmp_path / "x.npz"), classes=classes, split="train", heldout="", **kept)
    experiment = build(plain)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(experiment.net.init, jax.random.key(0))))
    assert f"{count / 1e6:.0f} million parameters" in module.__doc__, count


def test_a_decay_with_options_is_a_dict():
    decay = dict(name="inverse_sqrt", after=100)
    experiment = build(config(optimizer=dict(name="adam", learning_rate=0.5, decay=decay)))
    assert [float(experiment.rate(k)) for k in (0, 100, 400)] == pytest.approx([0.5, 0.5, 0.25])


def test_the_constraint_of_a_net_reaches_the_step():
    experiment, seen = build(config()), []
    experiment = experiment._replace(net=experiment.net._replace(project=lambda params: seen.append(params) or params))
    mesh = mesh_of(experiment.config)
    _, step, target = program(experiment, mesh)
    step.lower(target, abstract_call(experiment, mesh))
    assert len(seen) == 1 and jax.tree.structure(seen[0]) == jax.tree.structure(target.params)

"""Whatever is done to a checkpoint, restoring gives exactly what was saved, an older step, or one clear sentence."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffjax.training.checkpoints import CheckpointError, CheckpointMismatch, open_checkpoints

pytestmark = pytest.mark.usefixtures("frozen")


class State(NamedTuple):
    step: Any
    params: Any
    ema: Any
    opt: Any
    key: Any


def make_state(step: int = 1) -> State:
    key, weights = jax.random.split(jax.random.key(step))
    params = {
        "down": {0: {"kernel": jax.random.normal(weights, (8, 3))}, 1: {"kernel": jnp.ones((2, 2), jnp.bfloat16)}},
        "table": jnp.arange(6, dtype=jnp.int8).reshape(2, 3),
        "mask": jnp.array([True, False, True]),
        "empty": jnp.zeros((0, 4)),
    }
    floats = {"w": params["down"][0]["kernel"]}
    return State(jnp.int32(step), params, floats, optax.adam(1e-3).init(floats), jax.random.split(key, 3))


def abstract(tree):
    return jax.eval_shape(lambda: tree)


def bits(leaf) -> bytes:
    leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return np.asarray(leaf).tobytes()


def assert_same(found, expected) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype) and bits(a) == bits(b)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path, said):
    with open_checkpoints(tmp_path / "run", warn=said.append) as opened:
        yield opened


def save(store, *steps: int, **metrics: float) -> None:
    for step in steps:
        store.save(step, make_state(step), meta={"at": step}, metric=metrics.get(f"at_{step}"), wait=True)


# --- round trips ------------------------------------------------------------------------------------------------------


def test_round_trip_is_bitwise_and_keeps_types(store):
    state = make_state(3)
    assert store.save(3, state, meta={"config": {"width": 64}, "lr": 0.1, "shape": (2, 3)})
    found, meta = store.restore(abstract(state))
    assert_same(found, state)
    assert meta == store.meta(3) == {"config": {"width": 64}, "lr": 0.1, "shape": [2, 3]}


def test_a_fresh_process_view_reads_one_field_without_the_others(store, tmp_path):
    save(store, 1)
    for field in ("params", "opt"):
        shutil.rmtree(store.directory / "1" / field)
    with open_checkpoints(store.directory, read_only=True) as reader:
        found, _ = reader.restore({"ema": abstract(make_state().ema)})
        assert_same(found, {"ema": make_state().ema})
        found, _ = reader.restore(State(None, None, abstract(make_state().ema), None, None))
        assert_same(found, State(None, None, make_state().ema, None, None))
        with pytest.raises(CheckpointError, match="step 1"):
            reader.restore(abstract(make_state()))


def test_no_checkpoint_is_none_and_a_missing_step_is_named(store, tmp_path):
    assert store.restore(abstract(make_state())) is None and store.best() is None and store.steps() == []
    assert store.reached_preemption(1) is False
    assert open_checkpoints(tmp_path / "absent", read_only=True).restore({"ema": {}}) is None
    assert not (tmp_path / "absent").exists()
    save(store, 1, 2)
    with pytest.raises(CheckpointError, match=r"step 7 .*saved steps: \[1, 2\]"):
        store.restore(abstract(make_state()), 7)
    assert_same(store.restore(abstract(make_state()), 1)[0], make_state(1))


def test_the_state_may_be_donated_while_it_is_written(store):
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    big = jax.random.normal(jax.random.key(0), (1 << 20,))
    expected = np.asarray(big).copy()
    store.save(1, {"big": big}, meta={})
    for _ in range(5):
        big = double(big)
    found, _ = store.restore({"big": abstract(big)})
    np.testing.assert_array_equal(found["big"], expected)


# --- saving twice, keeping, sweeping ----------------------------------------------------------------------------------


def test_saving_again_is_nothing_and_overwriting_is_refused(store):
    save(store, 2, 5)
    assert store.save(5, make_state(5), meta={}) is False
    with pytest.raises(CheckpointError, match="step 5 of another run"):
        store.save(5, make_state(6), meta={})
    with pytest.raises(CheckpointError, match="step 5 of another run"):
        store.save(4, make_state(4), meta={})
    assert store.meta(5) == {"at": 5}


@pytest.mark.parametrize(
    ("losses", "kept", "best"),
    [
        ([5, 1, 3, 4, 2, 6], [2, 5, 6], 2),
        ([None] * 5, [4, 5], None),
        ([5, None, float("nan"), float("-inf"), 9, None], [1, 5, 6], 1),
        ([3, 2, 1], [2, 3], 3),
        ([1, 1, 1, 1], [3, 4], 4),
    ],
)
def test_the_newest_two_and_the_best_are_kept(store, losses, kept, best):
    for step, loss in enumerate(losses, 1):
        store.save(step, {"x": jnp.ones(2)}, meta={}, metric=loss)
        if step == 3:  # what is kept does not depend on one process having seen every metric
            store.close()
    store.wait()
    assert store.steps() == kept and store.best() == best


def test_leftovers_are_swept_by_a_writer_and_left_alone_by_a_reader(store):
    save(store, 1)
    stale = store.directory / "7.orbax-checkpoint-tmp-12" / "ema"
    stale.mkdir(parents=True)
    open_checkpoints(store.directory, read_only=True)
    assert stale.exists() and store.steps() == [1]
    open_checkpoints(store.directory)
    assert not stale.parent.exists() and store.steps() == [1]


def test_a_reader_cannot_save(store):
    reader = open_checkpoints(store.directory, read_only=True)
    with pytest.raises(CheckpointError, match="read_only"):
        reader.save(1, {"x": jnp.ones(2)}, meta={})


# --- damage -----------------------------------------------------------------------------------------------------------


def data_file(step: Path) -> Path:
    return max((path for path in step.glob("big/**/d/*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 4
    path.write_bytes(bytes(data))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "flip data": lambda step: flip(data_file(step), 0.6),
    "truncate data": lambda step: halve(data_file(step)),
    "delete data": lambda step: data_file(step).unlink(),
    "delete field": lambda step: shutil.rmtree(step / "big"),
    "truncate manifest": lambda step: halve(step / "big" / "manifest.ocdbt"),
    "truncate metadata": lambda step: halve(step / "big" / "_METADATA"),
    "delete manifest": lambda step: (step / "big" / "manifest.ocdbt").unlink(),
    "delete record": lambda step: shutil.rmtree(step / "meta"),
    "truncate record": lambda step: halve(step / "meta" / "metadata"),
    "edit record": lambda step: (step / "meta" / "metadata").write_text(
        (step / "meta" / "metadata").read_text().replace("0.25", "0.35")
    ),
    "empty record": lambda step: (step / "meta" / "metadata").write_text("{}"),
    "list record": lambda step: (step / "meta" / "metadata").write_text("[1]"),
}


def big_state(step: int) -> dict:
    return {"big": {"w": jax.random.normal(jax.random.key(step), (4096,))}}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_passed_over_set_aside_and_written_anew(tmp_path, said, damage):
    with open_checkpoints(tmp_path, warn=said.append) as store:
        for step in (1, 2):
            store.save(step, big_state(step), meta={"lr": 0.25}, wait=True)
    DAMAGES[damage](tmp_path / "2")
    with open_checkpoints(tmp_path, warn=said.append) as store:
        target = abstract(big_state(1))
        found, _ = store.restore(target)
        assert_same(found, big_state(1))
        assert len(said) == 1 and "step 2" in said[0] and str(tmp_path / "2") in said[0] and "step 1" in said[0]
        assert "\n" not in said[0] and "TensorStore" not in said[0] and len(said[0]) < 400 + 2 * len(str(tmp_path))
        with pytest.raises(CheckpointError, match="step 2"):
            store.restore(target, 2)
        assert store.save(2, big_state(2), meta={}, wait=True)
        assert_same(store.restore(target)[0], big_state(2))
        assert store.steps() == [1, 2] and (tmp_path / "2.damaged").is_dir() and len(said) == 1


def test_if_every_step_is_damaged_that_is_an_error_and_not_a_fresh_start(store, said):
    for step, damage in ((1, "flip data"), (2, "delete record")):
        store.save(step, big_state(step), meta={}, wait=True)
        DAMAGES[damage](store.directory / str(step))
    with pytest.raises(CheckpointError, match="none of 2 .*step 2: FileNotFound.*step 1: 'big/w'"):
        store.restore(abstract(big_state(1)))
    assert said == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: p | {"new": jnp.ones(2)}, r"'params/new' \(float32\[2\]\) is missing from it"),
        (lambda p: {"down": p["down"]}, r"it has 'params/empty' \(float32\[0,4\]\), which the target lacks"),
        (lambda p: p | {"mask": jnp.ones(4, bool)}, r"'params/mask' is bool\[3\] in it and bool\[4\] in the target"),
        (lambda p: p | {"table": jnp.ones((2, 3))}, r"'params/table' is int8\[2,3\] in it and float32\[2,3\]"),
        (lambda p: p | {"empty": jnp.ones((0, 5))}, r"'params/empty' is float32\[0,4\] in it and float32\[0,5\]"),
        (lambda p: None, None),
    ],
)
def test_another_model_is_an_error_that_names_the_first_difference(store, said, change, sentence):
    save(store, 1, 2)
    state = make_state(2)
    target = abstract(state._replace(params=change(state.params)))
    if sentence is None:
        assert store.restore(target)[0].params is None
    else:
        with pytest.raises(CheckpointMismatch, match=f"step 2 .*{sentence}"):
            store.restore(target)
    assert said == []


# --- a disk that goes away --------------------------------------------------------------------------------------------


def replace_by_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("")


@pytest.mark.parametrize("how", [replace_by_file, shutil.rmtree])
def test_a_directory_that_goes_away_is_a_sentence(store, how):
    save(store, 1)
    how(store.directory)
    for call in (
        lambda: store.save(2, make_state(2), meta={}, wait=True),
        lambda: store.restore(abstract(make_state())),
        store.steps,
    ):
        with pytest.raises(CheckpointError, match=str(store.directory)):
            call()


def test_a_file_is_not_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    for read_only in (False, True):
        with pytest.raises(CheckpointError, match="file"):
            open_checkpoints(tmp_path / "file", read_only=read_only)


def test_a_failed_background_save_is_raised_later_and_costs_no_other_step(store):
    save(store, 1, 2)
    obstacle = store.directory / "3"
    state = {"x": jax.random.normal(jax.random.key(0), (1 << 21,))}
    store.save(3, state, meta={})
    obstacle.mkdir()
    (obstacle / "in the way").write_text("")
    with pytest.raises(CheckpointError, match="step 3"):
        store.wait()
    shutil.rmtree(obstacle)
    store.wait()
    assert store.steps() == [1, 2]
    assert_same(store.restore(abstract(make_state()))[0], make_state(2))
    assert store.save(3, make_state(3), meta={}, wait=True) and store.steps() == [2, 3]


def test_bad_arguments_are_sentences(store, tmp_path):
    for bad, sentence in (
        (lambda: store.save(1, {"meta": jnp.ones(1)}, meta={}), "'meta'"),
        (lambda: store.save(1, {"a/b": jnp.ones(1)}, meta={}), "'a/b'"),
        (lambda: store.save(1, {"a": {"b/c": jnp.ones(1), "b": {"c": jnp.ones(1)}}}, meta={}), "same path"),
        (lambda: store.save(1, {"a": jnp.ones(1)}, meta={"f": print}), "JSON"),
        (lambda: open_checkpoints(tmp_path, keep_last=0), "keep_last=0"),
    ):
        with pytest.raises(ValueError, match=sentence) as caught:
            bad()
        assert "\n" not in str(caught.value)
    assert store.steps() == []


# --- devices ----------------------------------------------------------------------------------------------------------


def over(count: int, *spec: str | None) -> NamedSharding:
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
    return NamedSharding(mesh, PartitionSpec(*spec))


def test_devices_may_change_between_runs(store):
    tree = {"w": jax.random.normal(jax.random.key(0), (16, 8)), "keys": jax.random.split(jax.random.key(1), 8)}
    placements = [over(1), over(8, "data"), over(4, None, "data"), None]
    state = {"ema": tree}
    for step, place in enumerate(placements):
        store.save(step, state, meta={})
        places = {"w": place, "keys": over(place.num_devices, "data") if place else None}
        target = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree, places
        )
        state, _ = store.restore({"ema": target})
        assert_same(state, {"ema": tree})
        assert place is None or state["ema"]["w"].sharding == place

"""What the loop does, in which order, and when it refuses to go on."""

import contextlib
import math
import os
import signal
import threading
from itertools import islice
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from diffjax.errors import InputError
from diffjax.training import Actions, Rhythm, Watch, calls, fit, interruptible

NEVER = Rhythm(log=0, evaluate=0, checkpoint=0, preview=0, snapshot=0)


def run(steps, rhythm, *, losses=None, norms=None, stop_at=None, most=1, spike=0.0):
    """(final state, everything that happened in order); the state counts the steps, batch i carries loss i."""
    events, losses, norms = [], losses or {}, norms or {}

    def step(state, batches):
        events.extend(("step", i) for i in batches)
        metrics = {"loss": [losses.get(i, i) for i in batches], "grad_norm": [norms.get(i, 1) for i in batches]}
        return state + len(batches), {name: jnp.float32(values) for name, values in metrics.items()}

    def evaluate(state):
        events.append(("evaluate", state))
        return {"heldout_loss": 10.0 * state}

    actions = Actions(
        evaluate=evaluate,
        preview=lambda state, done: events.append(("preview", done)),
        save=lambda state, done, score: events.append(("save", done, score)),
        snapshot=lambda state, done: events.append(("snapshot", done)),
        alarm=lambda number, reason, recent: events.append(("alarm", number, len(recent))) or "box",
        stop=lambda done: done == stop_at,
    )
    report = SimpleNamespace(
        training=lambda done, metrics: events.append(("log", done, [m["loss"] for m in metrics])),
        scores=lambda done, scores: scores and events.append(("scores", done, scores)),
        note=lambda sentence: events.append(("note", sentence)),
        resume=lambda: None,
        waiting=lambda what: contextlib.nullcontext(),
    )
    numbers = iter(range(steps.start, 1000))
    batches = (list(islice(numbers, n)) for n in calls(steps, rhythm, most))
    try:
        state = fit(
            step, steps.start, batches, steps=steps, rhythm=rhythm, actions=actions, report=report, watch=Watch(spike)
        )
        return state, events, next(numbers)
    except InputError as error:
        return str(error), events, None


def test_order_and_cadence():
    state, events, next_batch = run(range(2, 7), Rhythm(log=2, evaluate=3, checkpoint=4, preview=6, snapshot=0))
    assert (state, next_batch) == (7, 7)  # and no batch was drawn in vain
    assert events == [
        ("step", 2),
        ("log", 3, [2.0]),
        ("evaluate", 3),
        ("scores", 3, {"heldout_loss": 30.0}),
        ("step", 3),
        ("log", 4, [3.0]),
        ("save", 4, None),
        ("step", 4),
        ("step", 5),
        ("log", 6, [4.0, 5.0]),
        ("evaluate", 6),
        ("scores", 6, {"heldout_loss": 60.0}),
        ("preview", 6),
        ("step", 6),
        ("log", 7, [6.0]),
        ("evaluate", 7),
        ("scores", 7, {"heldout_loss": 70.0}),
        ("preview", 7),
        ("save", 7, 70.0),
    ]


@pytest.mark.parametrize("most", [2, 3, 10, 50])
@pytest.mark.parametrize(
    "trouble",
    [{}, {"losses": {17: math.nan}}, {"norms": {31: math.inf}}, {"losses": {22: 1e4}, "spike": 20.0}],
    ids=["none", "loss", "norm", "spike"],
)
@pytest.mark.parametrize("steps", [range(60), range(7, 48)])
def test_the_length_of_calls_changes_nothing_that_happens(most, trouble, steps):
    for rhythm in (NEVER, Rhythm(log=10, evaluate=20, checkpoint=20, preview=40, snapshot=0), Rhythm(7, 0, 9, 0, 5)):
        assert run(steps, rhythm, **trouble, most=most) == run(steps, rhythm, **trouble)


def test_calls_end_where_something_is_due():
    assert list(calls(range(7, 48), Rhythm(20, 0, 15, 0, 0), 5)) == [5, 1, 1, 1] + [5] * 6 + [1] * 3
    assert set(calls(range(2400), Rhythm(50, 800, 400, 800, 0), 10)) == {10}  # one program


def test_a_signal_within_a_call_ends_the_run_behind_it():
    state, events, _ = run(range(60), NEVER, stop_at=14, most=10)
    assert state == 20 and events[-2] == ("save", 20, None) and "stopped at step 20 of 60" in events[-1][1]


def test_the_last_step_is_logged_and_saved_even_if_nothing_is_ever_due():
    assert run(range(3), NEVER)[1][-2:] == [("log", 3, [0.0, 1.0, 2.0]), ("save", 3, None)]


def test_no_steps_do_nothing():
    assert run(range(5, 5), NEVER) == (5, [], 5)


def test_stop_saves_says_so_and_ends():
    state, events, _ = run(range(10), NEVER, stop_at=4)
    assert state == 4 and events[-3:-1] == [("log", 4, [0.0, 1.0, 2.0, 3.0]), ("save", 4, None)]
    assert "stopped at step 4 of 10" in events[-1][1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["losses", "norms"])
@pytest.mark.parametrize("rhythm", [NEVER._replace(checkpoint=3), NEVER._replace(checkpoint=3, log=1), NEVER])
def test_what_is_not_finite_is_never_saved(value, kind, rhythm):
    """Neither a bad loss nor a bad gradient, which spoils the parameters before any loss shows it."""
    sentence, events, _ = run(range(9), rhythm, **{kind: {4: value}})
    assert "step 4, on batch 4" in sentence and "checkpoint" in sentence and str(value) in sentence
    assert [event for event in events if event[0] == "save"] == ([("save", 3, None)] if rhythm.checkpoint else [])


def test_judged_only_after_the_loss_is_known_to_be_finite():
    _, events, _ = run(range(9), NEVER._replace(evaluate=2), losses={3: math.nan})
    assert [event for event in events if event[0] == "evaluate"] == [("evaluate", 2)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_raise_the_flag_and_handlers_return(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with interruptible() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), number)
        assert interrupted()
    assert {n: signal.getsignal(n) for n in before} == before


def test_a_second_interrupt_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as interrupted:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one of these is patient
            signal.raise_signal(number)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_signals_are_left_alone():
    seen = []

    def work():
        with interruptible() as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]

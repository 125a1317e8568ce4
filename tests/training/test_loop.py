"""What the loop does, in which order, and when it refuses to go on."""

import contextlib
import math
import os
import signal
import threading
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from diffjax.errors import InputError
from diffjax.training import Actions, Rhythm, fit, interruptible

NEVER = Rhythm(log=0, evaluate=0, checkpoint=0, preview=0, snapshot=0)


def run(steps, rhythm, *, losses=None, norms=None, stop_at=None):
    """(final state, everything that happened in order); the state counts the steps, batch i carries loss i."""
    events, losses, norms = [], losses or {}, norms or {}

    def step(state, batch):
        events.append(("step", batch))
        return state + 1, {"loss": jnp.float32(losses.get(batch, batch)), "grad_norm": jnp.float32(norms.get(batch, 1))}

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
    batches = iter(range(steps.start, 1000))
    try:
        state = fit(step, steps.start, batches, steps=steps, rhythm=rhythm, actions=actions, report=report)
        return state, events, next(batches)
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

"""Calls on their way to an actor."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from shoal.machines.calls import ActorCalls, Call


def add(calls: ActorCalls, number: int, ready: bool = True) -> Call:
    call = Call(f"task-{number}", spec=number, ready=ready)
    calls.add(call)
    return call


def test_calls_wait_until_the_actor_lives() -> None:
    calls = ActorCalls("actor-1")
    made = [add(calls, number) for number in range(3)]
    assert calls.sendable() == []
    assert calls.alive("address", "exec-1") == made
    assert list(calls.sent.values()) == made
    assert calls.sendable() == []


def test_a_call_never_overtakes_an_earlier_one() -> None:
    calls = ActorCalls("actor-1", address="address")
    first, second = add(calls, 1, ready=False), add(calls, 2)
    assert calls.sendable() == []
    first.ready = True
    assert calls.sendable() == [first, second]


def test_an_answer_ends_a_call_once() -> None:
    calls = ActorCalls("actor-1", address="address")
    call = add(calls, 1)
    assert calls.finished("task-1") is None, "it is still queued"
    calls.sendable()
    assert calls.finished("task-1") is call
    assert calls.finished("task-1") is None


def test_a_queued_call_can_be_taken_out_and_no_longer_blocks() -> None:
    calls = ActorCalls("actor-1", address="address")
    first, second = add(calls, 1, ready=False), add(calls, 2)
    assert calls.cancel("task-1") is first
    assert calls.cancel("task-1") is None
    assert calls.sendable() == [second]
    assert calls.cancel("task-2") is None, "it was sent"


def test_death_returns_every_call_in_order() -> None:
    calls = ActorCalls("actor-1", address="address")
    sent = [add(calls, number) for number in range(2)]
    calls.sendable()
    queued = [add(calls, 2, ready=False), add(calls, 3)]
    assert not calls.dead
    assert calls.died("", "last words") == [*sent, *queued]
    assert calls.dead and calls.cause and calls.stderr == "last words"
    assert calls.died("again", "") == []
    assert calls.sendable() == []


@given(st.lists(st.sampled_from(["call", "ready", "alive", "finish", "cancel"]), max_size=60), st.randoms())
def test_calls_leave_in_the_order_made_and_end_once(steps: list[str], random: Random) -> None:
    calls = ActorCalls("actor-1")
    made: list[Call] = []
    left: list[Call] = []
    ended: list[Call] = []
    for step in steps:
        if step == "call":
            made.append(add(calls, len(made), ready=False))
        elif step == "ready" and made:
            random.choice(made).ready = True
            left += calls.sendable()
        elif step == "alive":
            left += calls.alive("address", "exec-1")
        elif step == "finish" and calls.sent:
            call = calls.finished(next(iter(calls.sent)))
            assert call is not None
            ended.append(call)
        elif step == "cancel" and calls.queue:
            call = calls.cancel(next(reversed(calls.queue)))
            assert call is not None
            ended.append(call)
    ended += calls.died("killed", "")
    assert [call.spec for call in left] == sorted(call.spec for call in left)
    assert sorted(call.spec for call in ended) == list(range(len(made)))


def test_after_a_restart_calls_under_way_come_again_ahead_of_the_others() -> None:
    calls = ActorCalls("actor-1", address="old")
    again = Call("task-again", "again", retries_left=1, ready=True)
    endless = Call("task-endless", "endless", retries_left=-1, ready=True)
    calls.add(again)
    lost = add(calls, 1)
    calls.add(endless)
    calls.sendable()
    later = add(calls, 2)
    assert calls.restarting() == [lost]
    assert calls.sendable() == [], "there is no process yet"
    assert calls.alive("new", "exec-2") == [again, endless, later]
    assert (again.retries_left, again.attempt) == (0, 1)
    assert (endless.retries_left, endless.attempt) == (-1, 1)
    assert calls.restarting() == [again, later]


def test_a_call_that_failed_is_made_again_first() -> None:
    calls = ActorCalls("actor-1", address="address")
    call = Call("task-1", "spec", retries_left=1, ready=True)
    calls.add(call)
    calls.sendable()
    waiting = add(calls, 2, ready=False)
    assert calls.again("task-1") == [call]
    assert (call.retries_left, call.attempt) == (0, 1)
    assert list(calls.queue.values()) == [waiting]


def test_what_is_called_after_a_kill_is_not_for_the_process_that_still_lives() -> None:
    calls = ActorCalls("actor-1", address="old")
    calls.held = True
    call = add(calls, 1)
    assert calls.sendable() == []
    assert calls.restarting() == []
    assert calls.alive("new", "exec-2") == [call]

"""Who ends when a node's memory is nearly full, when nobody does, and when new work may come."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.machines.memory_watch import (
    ACTOR,
    BASE,
    COOL_DOWN,
    HOLD,
    IDLE,
    LITTLE,
    LONGEST,
    SHORTEST,
    SIMILAR,
    TASK,
    THRESHOLD,
    WORTH,
    Gauge,
    Hold,
    Usage,
    Verdict,
    judge,
    next_look,
)

GIB = 1 << 30
FULL = Gauge("the memory", 16 * GIB, int(15.5 * GIB))


def task(name: str, gib: float, **more: Any) -> Usage:
    return Usage(name, int(gib * GIB), TASK, **{"job_id": "job", **more})


def actor(name: str, gib: float, **more: Any) -> Usage:
    return dataclasses.replace(task(name, gib, **more), work=ACTOR)


def idle(name: str, gib: float, job_id: str = "job") -> Usage:
    return Usage(name, int(gib * GIB), IDLE, job_id)


def victim_of(executors: Sequence[Usage], gauge: Gauge = FULL) -> str:
    verdict = judge(gauge, executors, 100.0)
    assert verdict is not None and verdict.victim is not None
    return verdict.victim.executor_id


# -- whether -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.949])
def test_below_the_threshold_nobody_ends(ratio: float) -> None:
    assert judge(Gauge("the memory", GIB, int(ratio * GIB)), [task("a", 0.9)], 100.0) is None


def test_the_threshold_can_be_another() -> None:
    gauge = Gauge("the memory", 16 * GIB, 13 * GIB)
    assert judge(gauge, [task("a", 9)], 100.0) is None
    assert judge(gauge, [task("a", 9)], 100.0, threshold=0.8) is not None


def test_the_next_waits_until_the_last_has_gone() -> None:
    executors = [task("a", 5), task("b", 5)]
    assert judge(FULL, executors, 100.0, last_end_at=100.0) is None
    assert judge(FULL, executors, 100.0 + 0.99 * COOL_DOWN, last_end_at=100.0) is None
    assert judge(FULL, executors, 100.0 + COOL_DOWN, last_end_at=100.0) is not None


def test_what_others_fill_is_not_blamed_on_executors() -> None:
    verdict = judge(FULL, [task("a", 0.7), task("b", 0.7), idle("c", 0.1)], 100.0)
    assert verdict is not None and not verdict.is_ours
    assert verdict.held == int(0.7 * GIB) * 2 + int(0.1 * GIB)
    nobody = judge(FULL, [], 100.0)
    assert nobody is not None and not nobody.is_ours


# -- whom --------------------------------------------------------------------------------------------------------


def test_what_any_executor_holds_is_not_blamed_on_executors_however_many() -> None:
    many = [Usage(f"e{number}", BASE, TASK, "job") for number in range(200)]
    assert sum(executor.private for executor in many) > LITTLE * FULL.limit
    verdict = judge(FULL, many, 100.0)
    assert verdict is not None and not verdict.is_ours and verdict.held == 0
    assert victim_of([*many, task("hungry", 2.0)]) == "hungry"


def test_the_one_that_holds_by_far_most_ends_whatever_it_is() -> None:
    innocents = [task("a", 1, since=9.0), task("b", 2, since=8.0, retriable=True)]
    assert victim_of([*innocents, actor("hog", 9, since=1.0, retriable=False)]) == "hog"


def test_a_task_rather_than_an_actor_that_holds_about_as_much() -> None:
    assert victim_of([actor("a", 5, since=9.0), task("t", 4.5, since=1.0)]) == "t"


def test_work_that_can_be_done_again_rather_than_work_that_cannot() -> None:
    executors = [
        actor("a", 5, retriable=False, since=9.0),
        actor("b", 5, retriable=None),
        actor("c", 4, retriable=True),
    ]
    assert victim_of(executors) == "c"
    assert victim_of(executors[:2]) == "b"


def test_the_job_that_holds_most_in_all() -> None:
    modest = [task("a", 3, job_id="modest", since=9.0)]
    greedy = [task(f"g{number}", 2.9, job_id="greedy", since=number) for number in range(4)]
    assert victim_of([*modest, *greedy]) == "g3"


def test_the_youngest_so_that_the_oldest_gets_done() -> None:
    executors = [task(f"t{number}", 3 - 0.1 * number, since=number) for number in (2, 0, 3, 1)]
    assert victim_of(executors) == "t3"


def test_those_without_work_go_first_and_all_at_once() -> None:
    executors = [task("t", 9), idle("i", 3), idle("j", 1), idle("small", 0.01), idle("spare", 0.3, job_id="")]
    verdict = judge(FULL, executors, 100.0)
    assert verdict is not None and verdict.is_ours
    assert [executor.executor_id for executor in verdict.idle] == ["i", "j"]
    assert verdict.victim is None


def test_if_those_without_work_hold_too_little_one_with_work_ends_too() -> None:
    executors = [task("t", 9), idle("i", 0.2)]
    gauge = Gauge("the memory", 16 * GIB, int(15.9 * GIB))
    verdict = judge(gauge, executors, 100.0)
    assert verdict is not None and verdict.victim is executors[0]
    assert verdict.idle == (executors[1],)
    assert verdict.is_biggest


def test_the_verdict_says_if_somebody_else_holds_more() -> None:
    verdict = judge(FULL, [actor("a", 5), task("t", 4)], 100.0)
    assert verdict is not None and not verdict.is_biggest


USAGES = st.lists(
    st.builds(
        Usage,
        st.uuids().map(str),
        st.integers(0, 4 * GIB),
        st.sampled_from([IDLE, TASK, ACTOR]),
        st.sampled_from(["", "job-a", "job-b", "job-c"]),
        st.integers(0, 99).map(float),
        st.sampled_from([True, False, None]),
    ),
    max_size=12,
)
GAUGES = st.builds(Gauge, st.just("the memory"), st.integers(GIB, 16 * GIB), st.integers(0, 16 * GIB))


@given(GAUGES, USAGES, st.one_of(st.none(), st.floats(90, 100)), st.sampled_from([0.5, 0.8, THRESHOLD]))
def test_whatever_there_is_the_verdict_is_sound(
    gauge: Gauge, executors: list[Usage], last_end_at: float | None, threshold: float
) -> None:
    verdict = judge(gauge, executors, 100.0, threshold=threshold, last_end_at=last_end_at)
    too_soon = last_end_at is not None and 100.0 - last_end_at < COOL_DOWN
    assert (verdict is None) == (gauge.used <= threshold * gauge.limit or too_soon)
    if verdict is None:
        return
    assert verdict.held == sum(executor.private for executor in executors if executor.private > BASE)
    if verdict.held < LITTLE * gauge.limit:
        assert not verdict.is_ours
    for executor in verdict.idle:
        assert executor in executors and executor.work == IDLE and executor.job_id
        assert executor.private >= WORTH * gauge.limit
    victim = verdict.victim
    if victim is None:
        return
    working = [executor for executor in executors if executor.work != IDLE and executor.private > BASE]
    assert victim in working
    most = max(executor.private for executor in working)
    assert victim.private >= SIMILAR * most
    assert verdict.is_biggest == (victim.private == most)
    similar = [executor for executor in working if executor.private >= SIMILAR * most]
    if victim.work == ACTOR:
        assert all(executor.work == ACTOR for executor in similar)
    alike = [
        executor
        for executor in similar
        if (executor.work, executor.retriable, executor.job_id) == (victim.work, victim.retriable, victim.job_id)
    ]
    assert victim.since == max(executor.since for executor in alike)
    # What is free afterwards without ending anybody at work must not have been enough.
    assert gauge.used - sum(executor.private for executor in verdict.idle) > threshold * gauge.limit


@given(GAUGES, USAGES, st.randoms(use_true_random=False))
def test_the_order_in_which_executors_are_listed_does_not_matter(
    gauge: Gauge, executors: list[Usage], random: Any
) -> None:
    shuffled = list(executors)
    random.shuffle(shuffled)
    one, other = judge(gauge, executors, 100.0), judge(gauge, shuffled, 100.0)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.victim == other.victim and set(one.idle) == set(other.idle)


@given(USAGES, st.integers(8, 16))
def test_ending_one_after_another_gets_below_the_threshold_or_nobody_is_left(executors: list[Usage], gib: int) -> None:
    limit = gib * GIB
    now, last, foreign = 100.0, None, int(0.3 * limit)
    left = {executor.executor_id: executor for executor in executors}
    for _ in range(len(executors) + 1):
        gauge = Gauge("the memory", limit, foreign + sum(executor.private for executor in left.values()))
        verdict = judge(gauge, list(left.values()), now, last_end_at=last)
        if verdict is None or not verdict.is_ours:
            break
        for executor in (*verdict.idle, *([verdict.victim] if verdict.victim else [])):
            del left[executor.executor_id]
        last, now = now, now + COOL_DOWN
    spares = sum(executor.private for executor in left.values() if executor.work == IDLE)
    assert gauge.used <= THRESHOLD * limit or gauge.used <= foreign + max(LITTLE * limit, spares)


# -- how often to look -------------------------------------------------------------------------------------------


def test_the_fuller_the_sooner_the_next_look() -> None:
    pauses = [next_look([Gauge("the memory", 16 * GIB, int(used * GIB))]) for used in (0, 8, 12, 15, 15.9)]
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[0] == LONGEST and pauses[-1] == SHORTEST
    assert next_look([]) == LONGEST


def test_the_tightest_gauge_decides_how_soon() -> None:
    wide, tight = Gauge("the machine", 64 * GIB, 0), Gauge("the container", 2 * GIB, 2 * GIB)
    assert next_look([wide, tight]) == SHORTEST


# -- afterwards --------------------------------------------------------------------------------------------------


def hold_after(executors: Sequence[Usage], gauge: Gauge = FULL) -> Hold:
    verdict = judge(gauge, executors, 100.0)
    assert verdict is not None
    hold = Hold()
    hold.begin(verdict, 100.0)
    return hold


def used(gib: float) -> list[Gauge]:
    return [Gauge("another", GIB, GIB), dataclasses.replace(FULL, used=int(gib * GIB))]


def test_new_work_waits_until_as_much_is_free_as_was_ended() -> None:
    hold = hold_after([task("young", 6, since=2.0), task("old", 7, since=1.0)])
    assert hold.active
    hold.look(used(9.5), 101.0)
    assert hold.active, "6 GiB more would fill it again"
    hold.look(used(7.0), 102.0)
    assert not hold.active


def test_nobody_waits_for_ever() -> None:
    hold = hold_after([task("young", 6, since=2.0), actor("old", 7, since=1.0)])
    hold.look(used(9.5), 100.0 + 0.99 * HOLD)
    assert hold.active
    hold.look(used(9.5), 100.0 + HOLD)
    assert not hold.active


def test_nobody_waits_if_there_is_nobody_to_wait_for() -> None:
    assert not hold_after([task("hog", 12), task("small", 0.5), actor("small too", 0.3)]).active


def test_nobody_waits_longer_than_the_others_are_there() -> None:
    """What was ended would not fit beside all that is not ours: waiting for that would be of no use."""
    hold = hold_after([task("young", 6, since=2.0), task("old", 5, since=1.0)])  # and 4.5 GiB of others
    hold.look(used(9.5), 101.0)
    assert hold.active
    hold.look(used(4.6), 101.0)
    assert not hold.active


def test_only_ending_work_makes_others_wait() -> None:
    assert not hold_after([idle("i", 5), task("t", 5)]).active
    hold = Hold()
    hold.begin(Verdict(FULL, 0), 100.0)
    assert not hold.active


def test_the_gauge_that_was_full_is_the_one_that_counts() -> None:
    hold = hold_after([task("young", 6, since=2.0), task("old", 7, since=1.0)])
    hold.look(used(9.5)[::-1], 101.0)
    assert hold.active
    hold.look([], 101.0)
    assert not hold.active, "it is there no more"

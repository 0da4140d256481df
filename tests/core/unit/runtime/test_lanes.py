"""Lanes: turns, limits and interrupts, with a caller that runs plain functions."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shoal.model import messages as m
from shoal.runtime.calling import Item, Outcome
from shoal.runtime.context import TaskContext
from shoal.runtime.lanes import AsyncLane, ThreadLane, limits_of


class Caller:
    """Runs the function that an item's arguments hold."""

    def run(self, item: Item) -> Outcome:
        return Outcome(item, ("i", item.run.args()))  # type: ignore[operator]

    async def run_async(self, item: Item) -> Outcome:
        return Outcome(item, ("i", await item.run.args()))  # type: ignore[operator]

    @staticmethod
    def interrupted(item: Item) -> Outcome:
        return Outcome(item, ("e", "interrupted"))


def make_item(function: Callable[[], Any], group: str = "", name: str = "call") -> Item:
    run = m.Run(name, "", 1, function, (), 0)  # type: ignore[arg-type]
    recipe = m.Recipe(1, "", "method", name, None, "", 0, 1, 0, group)
    return Item(run, recipe, None, TaskContext(name, name, "", None, "", 0, 0))


class Ends:
    """Collects outcomes."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Outcome] = queue.Queue()

    def __call__(self, outcome: Outcome) -> None:
        self._queue.put(outcome)

    def take(self, count: int) -> list[Any]:
        return [self._queue.get(timeout=10).payload[1] for _ in range(count)]


@pytest.fixture
def ends() -> Ends:
    return Ends()


def threads(ends: Ends, limits: dict[str, int]) -> ThreadLane:
    return ThreadLane(Caller(), lambda item: not item.context.cancelled, ends, limits, later)  # type: ignore[arg-type]


def later(seconds: float, function: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()


# -- threads -----------------------------------------------------------------------------------------------------


def test_as_many_calls_as_allowed_run_at_once(ends: Ends) -> None:
    for _ in range(200):  # a fresh lane each time: its first threads are where calls could be left waiting
        lane, meeting = threads(ends, {"": 4}), threading.Barrier(4)
        for _ in range(4):
            lane.put(make_item(lambda meeting=meeting: meeting.wait(10)))  # type: ignore[misc]
        assert sorted(ends.take(4)) == [0, 1, 2, 3]


def test_no_more_than_allowed(ends: Ends) -> None:
    lane, lock, running, most = threads(ends, {"": 3}), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    for _ in range(30):
        lane.put(make_item(work))
    ends.take(30)
    assert most == 3


def test_groups_do_not_wait_for_one_another(ends: Ends) -> None:
    lane, door = threads(ends, {"": 1, "io": 2}), threading.Event()
    lane.put(make_item(lambda: door.wait(10)))
    lane.put(make_item(lambda: "fast", group="io"))
    lane.put(make_item(lambda: "fast", group="unknown"))  # joins the ungrouped
    assert ends.take(1) == ["fast"]
    door.set()
    assert ends.take(2) == [True, "fast"]


def test_one_thread_keeps_the_order_and_skips_what_was_taken_back(ends: Ends) -> None:
    lane = threads(ends, {"": 1})
    for number in range(20):
        item = make_item(lambda number=number: number)  # type: ignore[misc]
        item.context.cancelled = number % 5 == 4
        lane.put(item)
    assert ends.take(16) == [number for number in range(20) if number % 5 != 4]


def test_an_interrupt_reaches_the_thread_and_the_next_call_is_safe(ends: Ends) -> None:
    lane = threads(ends, {"": 1})
    begun = threading.Event()

    def stubborn() -> None:
        begun.set()
        while True:
            time.sleep(0.001)

    item = make_item(stubborn)
    lane.put(item)
    lane.put(make_item(lambda: "next"))
    assert begun.wait(10)
    item.context.cancelled = True
    lane.interrupt(item)
    assert ends.take(2) == ["interrupted", "next"]


# -- an event loop -----------------------------------------------------------------------------------------------


@pytest.fixture
def loop_lane(ends: Ends) -> Iterator[AsyncLane]:
    lane = AsyncLane(
        Caller(), lambda item: not item.context.cancelled, ends, {"": 2, "io": 1}, asyncio.new_event_loop()
    )  # type: ignore[arg-type]
    thread = threading.Thread(target=lane.run, daemon=True)
    thread.start()
    yield lane
    lane._loop.call_soon_threadsafe(lane._loop.stop)
    thread.join(10)
    lane._loop.close()


def test_coroutines_run_at_once_up_to_the_limit(loop_lane: AsyncLane, ends: Ends) -> None:
    running = most = 0

    async def work() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        return "done"

    for _ in range(20):
        loop_lane.put(make_item(work))
    assert ends.take(20) == ["done"] * 20 and most == 2


def test_groups_of_coroutines_do_not_wait_for_one_another(loop_lane: AsyncLane, ends: Ends) -> None:
    doors: list[asyncio.Event] = []

    async def wait() -> str:
        doors.append(asyncio.Event())
        await doors[-1].wait()
        return "waited"

    async def fast() -> str:
        return "fast"

    async def open_doors() -> str:
        for door in doors:
            door.set()
        return "opened"

    loop_lane.put(make_item(wait))
    loop_lane.put(make_item(wait))
    loop_lane.put(make_item(fast, group="io"))
    assert ends.take(1) == ["fast"]
    loop_lane.put(make_item(open_doors, group="io"))
    assert sorted(ends.take(3)) == ["opened", "waited", "waited"]


def test_a_coroutine_is_cancelled_and_the_others_are_not(loop_lane: AsyncLane, ends: Ends) -> None:
    begun = threading.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def short() -> str:
        await asyncio.sleep(0.05)
        return "short"

    item = make_item(forever)
    loop_lane.put(item)
    loop_lane.put(make_item(short))
    assert begun.wait(10)
    loop_lane.interrupt(item)
    assert ends.take(2) == ["interrupted", "short"]


def test_limits() -> None:
    assert limits_of(3, {"io": 2}) == {"": 3, "io": 2}

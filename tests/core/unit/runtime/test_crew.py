"""Crews of threads: order, limits, and how many are awake for which kind of work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from shoal.runtime.crew import MEMORY, Crew


class Looks:
    """An event loop's ``call_later`` whose time the test makes pass."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def __call__(self, seconds: float, function: Callable[[], None]) -> None:
        self._due.append(function)

    def pass_time(self) -> bool:
        """Let what is due happen; returns whether there was anything."""
        due, self._due = self._due, []
        for function in due:
            function()
        return bool(due)


class Done:
    """Runs functions and collects what they return."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()

    def __call__(self, function: Callable[[], Any]) -> None:
        self._queue.put(function())

    def take(self, count: int) -> list[Any]:
        return [self._queue.get(timeout=10) for _ in range(count)]


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def done() -> Done:
    return Done()


def make_used_to_short_calls(crew: Crew, done: Done) -> None:
    for _ in range(4 * MEMORY):
        crew.put(lambda: None)
        done.take(1)


def test_one_thread_serves_short_calls_in_order(looks: Looks, done: Done) -> None:
    crew = Crew("", 8, done, looks)
    make_used_to_short_calls(crew, done)
    who: set[int] = set()
    for number in range(500):
        crew.put(lambda number=number: (who.add(threading.get_ident()), number)[1])
    assert done.take(500) == list(range(500))
    assert len(who) == 1


def test_calls_of_unknown_length_overlap_at_once(looks: Looks, done: Done) -> None:
    crew, meeting = Crew("", 4, done, looks), threading.Barrier(4)
    for _ in range(4):
        crew.put(lambda: meeting.wait(10))
    assert sorted(done.take(4)) == [0, 1, 2, 3]


def test_short_calls_that_begin_to_wait_for_each_other_get_their_threads(looks: Looks, done: Done) -> None:
    crew, meeting = Crew("", 4, done, looks), threading.Barrier(4)
    make_used_to_short_calls(crew, done)
    for _ in range(4):
        crew.put(lambda: meeting.wait(10))
    everybody = threading.Thread(target=lambda: found.extend(done.take(4)))
    found: list[int] = []
    everybody.start()
    while everybody.is_alive():
        looks.pass_time()
        everybody.join(0.001)
    assert sorted(found) == [0, 1, 2, 3]


def test_never_more_threads_than_allowed(looks: Looks, done: Done) -> None:
    crew, gate, lock, running, most = Crew("io", 3, done, looks), threading.Event(), threading.Lock(), 0, 0
    full = threading.Event()

    def work() -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
        assert gate.wait(10)
        with lock:
            running -= 1
        return threading.current_thread().name

    for _ in range(12):
        crew.put(work)
    assert full.wait(10)
    looks.pass_time()
    gate.set()
    assert {name.rpartition("-")[0] for name in done.take(12)} == {"shoal-io"}
    assert most == 3


def test_nothing_is_looked_at_without_work(looks: Looks, done: Done) -> None:
    crew = Crew("", 4, done, looks)
    make_used_to_short_calls(crew, done)
    while looks.pass_time():  # comes to an end
        pass
    crew.put(lambda: "awake again")
    assert done.take(1) == ["awake again"]

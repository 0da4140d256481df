"""``Arrivals``: many refs, and words of other threads, at one place to wait at."""

from __future__ import annotations

import threading

import pytest

import shoal
from shoal.api.arrivals import Arrivals
from shoal.errors import GetTimeoutError


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with shoal.init(num_cpus=1):
        yield


@shoal.remote
def count(stop):
    yield from range(stop)


@shoal.remote
def wait_in_arrivals():
    """Waits for a task that needs the CPU of this one."""
    arrivals = Arrivals()
    arrivals.watch(count.remote(1), "there")
    return arrivals.get(30)


def test_refs_come_as_they_are_ready_and_only_once():
    arrivals = Arrivals()
    ready = shoal.put(1)
    arrivals.watch(ready, "ready")
    assert arrivals.get(30) == "ready"
    with pytest.raises(GetTimeoutError, match="nothing has come"):
        arrivals.get(0)


def test_generators_come_once_for_each_value_and_once_for_the_end():
    arrivals, stream, seen = Arrivals(), count.remote(3), []
    for _ in range(4):
        arrivals.watch(stream, "next")
        assert arrivals.get(30) == "next"
        seen += [shoal.get(ref) for ref in [next(stream, None)] if ref is not None]
    assert seen == [0, 1, 2]


def test_other_threads_are_heard():
    arrivals = Arrivals()
    thread = threading.Thread(target=lambda: arrivals.put("hello"))
    thread.start()
    assert arrivals.get(30) == "hello"
    thread.join()


def test_a_closed_one_hears_of_no_ref():
    arrivals = Arrivals()
    arrivals.close()
    arrivals.watch(shoal.put(1), "ready")
    arrivals.put("end")
    assert arrivals.get(30) == "end"


def test_a_task_that_waits_lends_its_cpu():
    assert shoal.get(wait_in_arrivals.remote(), timeout=60) == "there"

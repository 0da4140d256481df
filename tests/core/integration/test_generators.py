"""Generators: values that come one by one, with back-pressure."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time

import numpy as np
import pytest

import shoal
from shoal.api import session


@shoal.remote
def count(number):
    yield from range(number)


def test_values_come_in_order_while_the_generator_runs(cluster, tmp_path):
    @shoal.remote
    def gated():
        yield "first"
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        yield np.ones(50_000)

    values = gated.remote()
    assert isinstance(values, shoal.ObjectRefGenerator)
    assert shoal.get(next(values), timeout=30) == "first"
    assert not values.completed()
    (tmp_path / "go").touch()
    assert shoal.get(next(values), timeout=30).sum() == 50_000
    with pytest.raises(StopIteration):
        next(values)
    with pytest.raises(StopIteration):
        next(values)


def test_many_small_values(cluster):
    assert [shoal.get(ref) for ref in count.remote(2_000)] == list(range(2_000))
    assert list(count.remote(0)) == []


def test_async_for(embedded):
    async def collect():
        return [await ref async for ref in count.remote(20)]

    assert asyncio.run(asyncio.wait_for(collect(), 30)) == list(range(20))


def test_an_async_generator_can_be_a_task(embedded):
    @shoal.remote
    async def slowly():
        for number in range(3):
            await asyncio.sleep(0.01)
            yield number

    assert [shoal.get(ref) for ref in slowly.remote()] == [0, 1, 2]


def test_an_error_is_the_last_value(cluster):
    @shoal.remote
    def fail():
        yield 1
        raise ValueError("half-way")

    first, second = fail.remote()
    assert shoal.get(first, timeout=30) == 1
    with pytest.raises(ValueError, match="half-way"):
        shoal.get(second, timeout=30)


def test_the_consumer_holds_the_generator_back(cluster, tmp_path, wait_until):
    @shoal.remote(max_pending=3)
    def write(number):
        for index in range(number):
            with open(tmp_path / "made", "a") as file:
                file.write("x")
            yield index

    values = write.remote(10)

    def made():
        return len((tmp_path / "made").read_text()) if (tmp_path / "made").exists() else 0

    wait_until(lambda: made() == 3, "three values")
    time.sleep(0.2)
    assert made() == 3
    assert shoal.get(next(values)) == 0
    wait_until(lambda: made() == 4, "the fourth")
    assert [shoal.get(ref) for ref in values] == list(range(1, 10))


def test_generators_that_wait_lend_their_cpus(embedded):
    """Both CPUs are taken by generators that wait for tasks that need one."""

    @shoal.remote(max_pending=1)
    def numbers():
        yield from range(4)

    @shoal.remote
    def double(x):
        return 2 * x

    streams = [numbers.remote(), numbers.remote()]
    doubled = [[double.remote(ref) for ref in stream] for stream in streams]
    assert [shoal.get(refs, timeout=30) for refs in doubled] == [[0, 2, 4, 6]] * 2


def test_dropping_it_half_way_cancels_it_and_frees_everything(cluster, tmp_path, wait_until):
    owner = session._session.owner
    gc.collect()
    wait_until(lambda: not owner.num_objects(), "release of what other tests have made")

    @shoal.remote(max_pending=2)
    def endless():
        try:
            while True:
                yield np.ones(50_000)
        finally:
            (tmp_path / "closed").touch()

    values = endless.remote()
    assert shoal.get(next(values), timeout=30).sum() == 50_000
    assert owner.num_objects()
    del values
    wait_until((tmp_path / "closed").exists, "the end of the generator")
    wait_until(lambda: owner.num_objects() == 0, lambda: f"release of {owner.num_objects()} objects")


def test_a_crash_half_way_leaves_no_gap_and_no_double(cluster, tmp_path):
    @shoal.remote
    def crash():
        for index in range(20):
            if index == 10 and not (tmp_path / "crashed").exists():
                (tmp_path / "crashed").touch()
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGKILL)
            yield index

    assert [shoal.get(ref, timeout=30) for ref in crash.remote()] == list(range(20))


def test_a_crash_beyond_retries_is_the_last_value(embedded):
    @shoal.remote(max_retries=0)
    def crash():
        yield 1
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
        yield 2

    first, second = crash.remote()
    assert shoal.get(first) == 1
    with pytest.raises(shoal.errors.ExecutorCrashedError):
        shoal.get(second)


def test_cancelling_a_generator(embedded, wait_until):
    @shoal.remote(max_pending=1)
    def endless():
        while True:
            yield 1

    values = endless.remote()
    next(values)
    shoal.cancel(values)
    refs = list(values)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(refs[-1], timeout=30)


def test_waiting_with_and_without_time(embedded, tmp_path):
    @shoal.remote
    def gated():
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        yield 1

    values = gated.remote()
    assert shoal.wait([values], timeout=0.1) == ([], [values])
    with pytest.raises(shoal.errors.GetTimeoutError):
        values.next(timeout=0.1)
    (tmp_path / "go").touch()
    assert shoal.wait([values], timeout=30) == ([values], [])
    assert shoal.get(next(values)) == 1


@pytest.mark.parametrize("use", [shoal.get, lambda values: shoal.get([values])])
def test_getting_the_whole_generator_is_refused(embedded, use):
    with pytest.raises(TypeError, match=r"Iterate over a generator|Expected ObjectRefs"):
        use(count.remote(1))


def test_a_generator_does_not_travel_and_says_so(embedded):
    with pytest.raises(shoal.errors.SerializationError, match="its values arrive here"):
        shoal.put(count.remote(1))


def test_streaming_takes_a_generator(embedded):
    @shoal.remote(num_returns="streaming")
    def number():
        return 5

    (ref,) = number.remote()
    with pytest.raises(TypeError, match="returned a int, not a generator"):
        shoal.get(ref, timeout=30)


def test_a_generator_can_be_collected_as_one_value(embedded):
    @shoal.remote
    def squares():
        return [x * x for x in range(3)]

    assert shoal.get(squares.remote(), timeout=30) == [0, 1, 4]


def test_each_value_goes_to_one_of_several_threads(embedded):
    values = count.options(max_pending=4).remote(500)
    taken = []

    def take():
        for ref in values:
            taken.append(shoal.get(ref, timeout=30))

    threads = [threading.Thread(target=take, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(taken) == list(range(500))

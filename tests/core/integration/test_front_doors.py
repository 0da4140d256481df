"""The usual interfaces over tasks and actors: map, as_completed, pools, queue, executor, joblib."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import multiprocessing
import os
import queue
import threading
import time

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import shoal


@pytest.fixture(scope="module", autouse=True)
def joined():
    with shoal.init(num_cpus=2) as cluster:
        yield cluster


def square(x):
    return x * x


def fail_at_seven(x):
    if x == 7:
        raise LookupError(f"no {x}")
    return x


@shoal.remote
def delayed(seconds, value):
    time.sleep(seconds)
    return value


@shoal.remote
class Worker:
    def double(self, x):
        return 2 * x

    def nap(self, seconds):
        time.sleep(seconds)
        return seconds


# -- as_completed ------------------------------------------------------------------------------------------------


def test_refs_come_as_they_are_ready():
    slow, quick = delayed.remote(0.5, "slow"), delayed.remote(0.0, "quick")
    ready = shoal.put("ready")
    done = shoal.as_completed([slow, quick, ready])
    assert shoal.get(next(done)) == "ready"
    assert done.missing == 2
    assert [shoal.get(ref) for ref in done] == ["quick", "slow"]
    assert list(shoal.as_completed([])) == []


def test_as_completed_of_very_many():
    refs = [shoal.put(i) for i in range(20_000)]
    assert sorted(shoal.get(ref) for ref in shoal.as_completed(refs)) == list(range(20_000))


def test_as_completed_with_async_for_and_with_failures():
    @shoal.remote
    def fail():
        raise ValueError("one of them")

    async def collect():
        seen = []
        async for ref in shoal.as_completed([delayed.remote(0.05, 1), fail.remote(), shoal.put(3)], timeout=30):
            try:
                seen.append(await ref)
            except ValueError as error:
                seen.append(str(error))
        return seen

    assert sorted(map(str, asyncio.run(collect()))) == ["1", "3", "one of them"]


def test_as_completed_runs_out_of_time():
    ref = delayed.remote(20, 0)
    with pytest.raises(shoal.errors.GetTimeoutError, match="1 values are not ready") as caught:
        list(shoal.as_completed([shoal.put(1), ref], timeout=0.2))
    assert caught.value.missing == 1
    shoal.cancel(ref)
    for wrong, error in ((3, TypeError), ([1], TypeError), ([ref, ref], ValueError)):
        with pytest.raises(error):
            shoal.as_completed(wrong)


# -- map ---------------------------------------------------------------------------------------------------------


def test_map_keeps_order_and_takes_several_iterables():
    assert list(shoal.map(square, range(1_000))) == [x * x for x in range(1_000)]
    assert list(shoal.map(pow, range(5), itertools.repeat(3))) == [x**3 for x in range(5)]
    assert list(shoal.map(square, [])) == []
    assert sorted(shoal.map(square, range(50), ordered=False)) == [x * x for x in range(50)]
    assert list(shoal.map(square, [shoal.put(3), 4])) == [9, 16]


def test_map_sends_tiny_calls_in_chunks():
    before = shoal.snapshot()["tasks"]["finished"]
    assert sum(shoal.map(square, range(30_000))) == sum(x * x for x in range(30_000))
    time.sleep(0.6)
    assert shoal.snapshot()["tasks"]["finished"] - before < 3_000


def test_map_takes_remote_functions_with_their_options():
    @shoal.remote(num_cpus=0.5, name="halves")
    def resources(x):
        return shoal.get_runtime_context().resources, shoal.get_runtime_context().task_name

    assert list(shoal.map(resources, [1])) == [({"num_cpus": 0.5}, "halves")]


def test_map_reads_no_further_than_it_has_to():
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield number

    results = shoal.map(square, endless(), max_in_flight=4, chunk_size=2)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(read) <= 20
    results.close()


def test_an_exception_comes_in_its_place_and_ends_the_rest():
    results = shoal.map(fail_at_seven, range(100), chunk_size=4)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(LookupError, match="no 7") as caught:
        next(results)
    assert "fail_at_seven" in [frame.name for frame in caught.traceback[-1:]]
    assert list(results) == []


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"max_in_flight": 0}, {"timeout": -1}, {"chunk_size": 1.5}])
def test_map_refuses_bad_options(options):
    (name,) = options
    with pytest.raises(shoal.errors.OptionError, match=f"`{name}`"):
        shoal.map(square, [1], **options)
    with pytest.raises(shoal.errors.OptionError):
        shoal.map(square)
    with pytest.raises(TypeError, match="takes a function"):
        shoal.map(3, [1])


# -- ActorPool ---------------------------------------------------------------------------------------------------


def test_an_actor_pool_maps_in_order_and_out_of_order():
    pool = shoal.ActorPool([Worker.remote(), Worker.remote()])
    assert list(pool.map(lambda actor, x: actor.double.remote(x), range(20))) == [2 * x for x in range(20)]
    naps = [0.3, 0.0, 0.0]
    assert list(pool.map_unordered(lambda actor, x: actor.nap.remote(x), naps))[-1] == 0.3
    assert not pool.has_next() and pool.has_free()


def test_an_actor_pool_takes_work_one_by_one():
    pool = shoal.ActorPool([Worker.remote()])
    for number in range(3):
        pool.submit(lambda actor, x: actor.double.remote(x), number)
    assert not pool.has_free()
    with pytest.raises(RuntimeError, match="were not taken"):
        next(pool.map(lambda actor, x: actor.double.remote(x), [1]))
    assert pool.get_next_unordered(timeout=30) == 0
    assert [pool.get_next(timeout=30), pool.get_next(timeout=30)] == [2, 4]
    with pytest.raises(StopIteration):
        pool.get_next()
    actor = pool.pop_idle()
    assert pool.pop_idle() is None
    pool.push(actor)
    with pytest.raises(ValueError, match="in the pool already"):
        pool.push(actor)
    pool.submit(lambda actor, x: actor.nap.remote(x), 5.0)
    with pytest.raises(shoal.errors.GetTimeoutError):
        pool.get_next(timeout=0.1)


def test_a_pool_goes_on_when_one_actor_dies():
    good, bad = Worker.remote(), Worker.remote()
    pool = shoal.ActorPool([good, bad])
    shoal.kill(bad)
    outcomes = []
    for number in range(4):
        pool.submit(lambda actor, x: actor.double.remote(x), number)
    while pool.has_next():
        try:
            outcomes.append(pool.get_next(timeout=30))
        except shoal.errors.ActorDiedError:
            outcomes.append("died")
    assert len(outcomes) == 4 and "died" in outcomes and set(outcomes) - {"died"}
    for wrong, error in (([], ValueError), ([1], TypeError)):
        with pytest.raises(error):
            shoal.ActorPool(wrong)


# -- Queue -------------------------------------------------------------------------------------------------------


def test_a_queue_joins_tasks():
    channel = shoal.Queue()

    @shoal.remote
    def produce(channel, numbers):
        for number in numbers:
            channel.put(number)

    @shoal.remote
    def consume(channel, count):
        return [channel.get(timeout=30) for _ in range(count)]

    taken = consume.remote(channel, 20)
    shoal.get(produce.remote(channel, range(20)), timeout=30)
    assert shoal.get(taken, timeout=30) == list(range(20))


def test_a_queue_is_full_and_empty_as_the_standard_librarys():
    channel = shoal.Queue(maxsize=2)
    channel.put_nowait_batch([1, 2])
    assert channel.full() and channel.qsize() == len(channel) == 2
    for put in (
        lambda: channel.put_nowait(3),
        lambda: channel.put(3, timeout=0.05),
        lambda: channel.put_nowait_batch([3]),
    ):
        with pytest.raises(queue.Full):
            put()
    assert channel.get_nowait_batch(2) == [1, 2]
    assert channel.empty()
    for get in (channel.get_nowait, lambda: channel.get(timeout=0.05), lambda: channel.get_nowait_batch(1)):
        with pytest.raises(queue.Empty):
            get()

    async def both():
        await channel.put_async("x")
        return await channel.get_async(timeout=5)

    assert asyncio.run(both()) == "x"
    with pytest.raises(shoal.errors.OptionError, match="`maxsize`"):
        shoal.Queue(-1)
    channel.shutdown()
    with pytest.raises(shoal.errors.ActorDiedError):
        channel.put(1)


# -- Executor ----------------------------------------------------------------------------------------------------


def test_an_executor_is_one_of_the_standard_library():
    with shoal.Executor() as executor:
        futures = [executor.submit(square, x) for x in range(10)]
        assert {future.result(timeout=30) for future in concurrent.futures.as_completed(futures)} == {
            x * x for x in range(10)
        }
        assert list(executor.map(pow, range(4), [2] * 4)) == [0, 1, 4, 9]
        failing = executor.submit(fail_at_seven, 7)
        assert isinstance(failing.exception(timeout=30), LookupError)
        called = []
        executor.submit(square, 3).add_done_callback(lambda future: called.append(future.result()))

        async def on_a_loop():
            return await asyncio.get_running_loop().run_in_executor(executor, square, 5)

        assert asyncio.run(on_a_loop()) == 25
    assert called == [9]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_an_executor_bounds_what_runs_and_cancels_it(tmp_path):
    executor = shoal.Executor(max_workers=1, num_cpus=0)

    def work(name):
        (tmp_path / name).touch()
        time.sleep(20)

    first, second = executor.submit(work, "first"), executor.submit(work, "second")
    deadline = time.monotonic() + 15
    while not (tmp_path / "first").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "second").exists()
    assert second.cancel() and first.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        first.result(timeout=30)
    executor.shutdown(cancel_futures=True)
    for options in ({"max_workers": 0}, {"num_returns": 2}, {"num_cpu": 1}):
        with pytest.raises(shoal.errors.OptionError):
            shoal.Executor(**options)


# -- Pool --------------------------------------------------------------------------------------------------------


def initialize(value):
    os.environ["SHOAL_TEST_POOL"] = value


def initialized(x):
    return os.environ["SHOAL_TEST_POOL"], x


def test_a_pool_does_as_multiprocessings():
    with shoal.Pool(2) as pool:
        assert pool.apply(pow, (2, 5)) == 32
        assert pool.map(square, range(20)) == [x * x for x in range(20)]
        assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
        assert list(pool.imap(square, range(5))) == [0, 1, 4, 9, 16]
        assert sorted(pool.imap_unordered(square, range(5))) == [0, 1, 4, 9, 16]
        called = []
        result = pool.map_async(square, range(4), callback=called.append)
        assert result.get(timeout=30) == [0, 1, 4, 9] and result.successful() and result.ready()
        failing = pool.apply_async(fail_at_seven, (7,), error_callback=called.append)
        with pytest.raises(LookupError):
            failing.get(timeout=30)
        slow = pool.apply_async(time.sleep, (20,))
        with pytest.raises(multiprocessing.TimeoutError):
            slow.get(timeout=0.05)
        with pytest.raises(ValueError, match="not ready"):
            slow.successful()
        with pytest.raises(ValueError, match="still running"):
            pool.join()
    assert called[0] == [0, 1, 4, 9] and isinstance(called[1], LookupError)
    with pytest.raises(ValueError, match="not running"):
        pool.apply(square, (1,))


def test_a_pools_initializer_runs_where_its_functions_do():
    pool = shoal.Pool(initializer=initialize, initargs=("here",))
    assert pool.map(initialized, range(3)) == [("here", 0), ("here", 1), ("here", 2)]
    pool.close()
    pool.join()
    with pytest.raises(TypeError, match="must be a callable"):
        shoal.Pool(initializer=3)
    with pytest.raises(shoal.errors.OptionError, match="maxtasksperchild"):
        shoal.Pool(maxtasksperchild=1)


# -- joblib ------------------------------------------------------------------------------------------------------


def total(array, factor):
    return float(array.sum()) * factor


def test_joblib_runs_here():
    shoal.register_joblib()
    large = np.ones(300_000)
    with joblib.parallel_config(backend="shoal"):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(square)(x) for x in range(50)) == [x * x for x in range(50)]
        sums = joblib.Parallel(n_jobs=-1)(joblib.delayed(total)(large, factor=x) for x in range(4))
        assert sums == [0.0, 300_000.0, 600_000.0, 900_000.0]
        with pytest.raises(LookupError, match="no 7"):
            joblib.Parallel(n_jobs=2)(joblib.delayed(fail_at_seven)(x) for x in range(20))


def test_scikit_learn_searches_here():
    shoal.register_joblib()
    features, labels = load_iris(return_X_y=True)
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10]}, cv=3, n_jobs=-1)
    before = shoal.snapshot()["tasks"]["finished"]
    with joblib.parallel_config(backend="shoal"):
        search.fit(features, labels)
    assert search.best_score_ > 0.9
    deadline = time.monotonic() + 10
    while shoal.snapshot()["tasks"]["finished"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nodes_and_resources_are_told():
    (node,) = shoal.nodes()
    assert node.total["num_cpus"] == 2 and node.labels["host"] == "127.0.0.1"
    assert shoal.cluster_resources()["num_cpus"] == 2
    assert 0 <= shoal.available_resources()["num_cpus"] <= 2
    inside = shoal.get(shoal.remote(lambda: shoal.nodes()[0].id).remote(), timeout=30)
    assert inside == node.id


def test_what_cannot_travel_is_the_error_of_its_own_future():
    with shoal.Executor(max_workers=1) as executor:
        futures = [executor.submit(abs, -1), executor.submit(abs, threading.Lock()), executor.submit(abs, -2)]
        assert futures[0].result(30) == 1 and futures[2].result(30) == 2
        with pytest.raises(shoal.errors.SerializationError, match="lock"):
            futures[1].result(30)
    with shoal.Pool(1) as pool:
        results = [pool.apply_async(abs, (value,)) for value in (-1, threading.Lock(), -2)]
        assert results[0].get(30) == 1 and results[2].get(30) == 2
        with pytest.raises(shoal.errors.SerializationError):
            results[1].get(30)


def test_a_pool_of_actors_goes_on_without_those_that_died():
    @shoal.remote
    class Worker:
        def work(self, x):
            if x == 2:
                os._exit(1)
            return x

    for take in ("get_next", "get_next_unordered"):
        pool = shoal.ActorPool([Worker.remote(), Worker.remote()])
        for value in range(20):
            pool.submit(lambda actor, value: actor.work.remote(value), value)
        values, num_dead = [], 0
        while pool.has_next():
            try:
                values.append(getattr(pool, take)(timeout=30))
            except shoal.errors.ActorDiedError:
                num_dead += 1
        assert (sorted(values), num_dead) == ([x for x in range(20) if x != 2], 1)


def test_a_pool_whose_last_actor_died_says_so_for_all_that_waits():
    @shoal.remote
    class Worker:
        def work(self, x):
            os._exit(1)

    for take in ("get_next", "get_next_unordered"):
        pool = shoal.ActorPool([Worker.remote()])
        for value in range(3):
            pool.submit(lambda actor, value: actor.work.remote(value), value)
        for _ in range(3):
            with pytest.raises(shoal.errors.ActorDiedError):
                getattr(pool, take)(timeout=30)
        assert not pool.has_next()


def test_as_completed_waits_as_long_as_wanted():
    for timeout in (1e12, float("inf")):
        assert [shoal.get(ref) for ref in shoal.as_completed([shoal.put(1)], timeout=timeout)] == [1]
        ref = shoal.remote(lambda: time.sleep(0.05)).remote()
        assert list(shoal.as_completed([ref], timeout=timeout)) == [ref]

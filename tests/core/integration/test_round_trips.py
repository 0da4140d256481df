"""Tasks, actors and objects, on the embedded cluster and on a plain Dask cluster with nannies and TLS."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import numpy as np
import pytest

import shoal
from shoal.api import session


def test_a_task_returns_its_value(cluster):
    @shoal.remote
    def add(a, b=1):
        return a + b

    assert shoal.get(add.remote(2), timeout=30) == 3
    assert shoal.get(add.remote(2, b=5), timeout=30) == 7


def test_a_task_runs_in_a_process_of_its_own(cluster):
    @shoal.remote
    def where():
        return os.getpid()

    assert shoal.get(where.remote(), timeout=30) != os.getpid()


def test_many_tasks_keep_their_order_and_run_in_parallel(cluster):
    @shoal.remote
    def work(x):
        time.sleep(0.01)
        return x, os.getpid()

    results = shoal.get([work.remote(i) for i in range(100)], timeout=60)
    assert [x for x, _ in results] == list(range(100))
    assert len({pid for _, pid in results}) == 2


def test_two_tasks_run_at_the_same_time(cluster, tmp_path):
    @shoal.remote
    def meet(mine, other):
        (tmp_path / mine).touch()
        deadline = time.monotonic() + 20
        while not (tmp_path / other).exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return mine

    assert shoal.get([meet.remote("a", "b"), meet.remote("b", "a")], timeout=30) == ["a", "b"]


def test_refs_among_the_arguments_arrive_as_values(cluster):
    @shoal.remote
    def add(a, b):
        return a + b

    three = add.remote(1, 2)
    assert shoal.get(add.remote(three, b=add.remote(three, shoal.put(10))), timeout=30) == 16


def test_refs_inside_a_container_stay_refs(cluster):
    @shoal.remote
    def total(refs):
        assert all(isinstance(ref, shoal.ObjectRef) for ref in refs)
        return sum(shoal.get(refs))

    assert shoal.get(total.remote([shoal.put(1), shoal.put(2)]), timeout=30) == 3


def test_a_ref_that_only_a_task_holds_lives_until_the_task_has_used_it(cluster):
    @shoal.remote
    def late(refs):
        time.sleep(0.2)
        return shoal.get(refs[0])

    assert shoal.get(late.remote([shoal.put("kept")]), timeout=30) == "kept"


def test_refs_inside_a_result_can_be_read(cluster):
    @shoal.remote
    def make():
        return {"inner": shoal.put(np.arange(5)), "big": shoal.put(np.ones(200_000))}

    made = shoal.get(make.remote(), timeout=30)
    assert shoal.get(made["inner"], timeout=30).tolist() == [0, 1, 2, 3, 4]
    assert shoal.get(made["big"], timeout=30).sum() == 200_000


def test_nested_tasks_deeper_than_there_are_cpus_do_not_deadlock(cluster):
    @shoal.remote
    def count(depth):
        return 0 if depth == 0 else 1 + shoal.get(nested[0].remote(depth - 1))

    nested = [count]
    assert shoal.get(count.remote(6), timeout=60) == 6


def test_many_tasks_that_each_wait_for_another(cluster):
    @shoal.remote
    def inner(x):
        return x * x

    @shoal.remote
    def outer(x):
        return shoal.get(inner.remote(x))

    assert shoal.get([outer.remote(i) for i in range(20)], timeout=90) == [i * i for i in range(20)]


def test_large_values_travel_through_shared_memory_and_stay_private(cluster):
    ref = shoal.put(np.zeros(1_000_000))

    @shoal.remote
    def write(array):
        array[:] = 7
        return float(array.sum()), array

    total, written = shoal.get(write.remote(ref), timeout=30)
    assert total == 7_000_000
    assert written.sum() == 7_000_000
    mine = shoal.get(ref)
    mine[0] = 1
    assert shoal.get(ref).sum() == 0


def test_an_empty_array_and_odd_buffers_survive(cluster):
    @shoal.remote
    def same(value):
        return value

    for array in (np.empty(0), np.ones((300, 400), order="F"), np.arange(10**6)[::2], np.ones(200_001, bool)):
        result = shoal.get(same.remote(array), timeout=30)
        assert result.dtype == array.dtype and np.array_equal(result, array)


def test_an_actor_keeps_state_and_the_order_of_calls(cluster):
    @shoal.remote
    class Log:
        def __init__(self, first):
            self.items = [first]

        def add(self, item):
            self.items.append(item)
            return len(self.items)

        def all(self):
            return self.items

    log = Log.remote("a")
    lengths = [log.add.remote(i) for i in range(200)]
    assert shoal.get(log.all.remote(), timeout=30) == ["a", *range(200)]
    assert shoal.get(lengths) == list(range(2, 202))


def test_an_actors_handle_works_in_tasks_and_in_other_actors(cluster):
    @shoal.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    @shoal.remote
    def bump(counter, times):
        return [shoal.get(counter.add.remote()) for _ in range(times)][-1]

    counter = Counter.remote()
    shoal.get([bump.remote(counter, 5) for _ in range(3)], timeout=30)
    assert shoal.get(counter.add.remote(), timeout=30) == 16


def test_calls_wait_for_their_arguments_without_losing_their_order(cluster):
    @shoal.remote
    def slow(x):
        time.sleep(0.2)
        return x

    @shoal.remote
    class Log:
        def __init__(self):
            self.items = []

        def add(self, item):
            self.items.append(item)
            return list(self.items)

    log = Log.remote()
    log.add.remote(slow.remote("first"))
    assert shoal.get(log.add.remote("second"), timeout=30) == ["first", "second"]


def test_async_functions_and_methods(cluster):
    @shoal.remote
    async def later(x):
        await asyncio.sleep(0.01)
        return x + 1

    @shoal.remote
    class Later:
        async def add(self, x):
            await asyncio.sleep(0)
            return x + 1

    assert shoal.get([later.remote(1), Later.remote().add.remote(2)], timeout=30) == [2, 3]


def test_refs_can_be_awaited_on_the_users_own_loop(cluster):
    @shoal.remote
    def add(a, b):
        return a + b

    async def main():
        return await asyncio.gather(add.remote(1, 2), add.remote(3, 4), shoal.put(5))

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [3, 7, 5]


def test_wait_returns_what_is_ready_first(cluster, tmp_path):
    @shoal.remote
    def until(path):
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return path.name

    slow, fast = until.remote(tmp_path / "slow"), until.remote(tmp_path / "fast")
    (tmp_path / "fast").touch()
    assert shoal.wait([slow, fast], timeout=20) == ([fast], [slow])
    assert shoal.wait([slow], timeout=0) == ([], [slow])
    (tmp_path / "slow").touch()
    assert shoal.wait([slow, fast], num_returns=2, timeout=20) == ([slow, fast], [])


def test_get_with_a_timeout_leaves_the_work_going(cluster, tmp_path):
    @shoal.remote
    def until(path):
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return "done"

    ref = until.remote(tmp_path / "go")
    with pytest.raises(shoal.errors.GetTimeoutError):
        shoal.get(ref, timeout=0.05)
    (tmp_path / "go").touch()
    assert shoal.get(ref, timeout=20) == "done"


def test_threads_of_the_driver_may_submit_and_get(cluster):
    @shoal.remote
    def square(x):
        return x * x

    results: list[int] = []

    def use(x):
        results.append(shoal.get(square.remote(x), timeout=30))

    threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [i * i for i in range(8)]


def test_long_work_does_not_hold_up_what_was_queued_behind_it(cluster, tmp_path):
    """Tasks sent ahead to an executor that turns out to be busy are taken back and run elsewhere."""

    @shoal.remote
    def work(x):
        deadline = time.monotonic() + 20
        while x == "blocked" and not (tmp_path / "go").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return x

    shoal.get([work.remote(i) for i in range(20)], timeout=30)  # now it counts as short
    refs = [work.remote("blocked"), *(work.remote(i) for i in range(50))]
    assert shoal.get(refs[1:], timeout=20) == list(range(50))
    (tmp_path / "go").touch()
    assert shoal.get(refs[0], timeout=20) == "blocked"


def test_everything_let_go_is_released(cluster, wait_until):
    owner = session._session.owner

    @shoal.remote
    def make(x):
        return np.ones(200_000) * x

    refs = [make.remote(i) for i in range(4)]
    shoal.get([make.remote(ref) for ref in refs], timeout=30)
    refs.append(shoal.put([shoal.put(np.ones(200_000))]))
    del refs
    wait_until(lambda: owner.num_objects() == 0, "release of every object")
    wait_until(
        lambda: not [found for found in owner.store.segments() if found.name.startswith("driver")],
        "release of segments",
    )


def test_output_of_tasks_is_printed_with_their_name(cluster, capfd):
    @shoal.remote
    def talk():
        print("hello from afar")
        return 1

    shoal.get(talk.options(name="talker").remote(), timeout=30)
    assert "(talker) hello from afar" in capfd.readouterr().out


def test_the_snapshot_tells_what_happened(cluster, wait_until):
    @shoal.remote
    def counted():
        return None

    shoal.get([counted.remote() for _ in range(10)], timeout=30)

    def finished() -> int:
        rows = [row for row in cluster.snapshot()["functions"] if row["name"] == "counted"]
        return rows[0]["finished"] if rows else 0

    wait_until(lambda: finished() == 10, "the report of ten finished tasks")
    snapshot = cluster.snapshot()
    assert snapshot["version"] == 2
    assert sum(node["cpus"] for node in snapshot["nodes"]) == 2
    wait_until(lambda: cluster.snapshot()["tasks"]["running"] == 0, "an end of everything that ran")
    assert cluster.name in repr(cluster)
    assert cluster.name in cluster._repr_html_()


def test_nested_output_is_there_when_the_result_is(cluster):
    seen: list[tuple[str | None, str]] = []
    shoal.output.set_sink(lambda event: seen.append((event.cell, event.data)))

    @shoal.remote
    def inner(i):
        print("inner", i)

    @shoal.remote
    def outer(i):
        print("before", i)
        shoal.get(inner.remote(i))
        print("after", i)

    try:
        for i in range(10):
            shoal.get(outer.options(cell="cell-1").remote(i), timeout=30)
            text = "".join(data for _, data in seen)
            assert text == f"before {i}\ninner {i}\nafter {i}\n"
            assert {cell for cell, _ in seen} == {"cell-1"}
            seen.clear()
    finally:
        shoal.output.set_sink(None)


def test_async_tasks_that_await_others_lend_their_cpus(cluster):
    @shoal.remote
    def square(x):
        return x * x

    @shoal.remote
    async def total(n):
        return sum(await asyncio.gather(*(square.remote(i) for i in range(n))))

    assert shoal.get([total.remote(10) for _ in range(4)], timeout=40) == [285] * 4


def test_errors_can_be_returned_in_their_places(cluster):
    @shoal.remote
    def may_fail(x):
        if x % 2:
            raise ValueError(f"odd: {x}")
        return x

    refs = [may_fail.remote(x) for x in range(4)]
    values = shoal.get(refs, timeout=30, return_exceptions=True)
    assert values[::2] == [0, 2] and [str(error) for error in values[1::2]] == ["odd: 1", "odd: 3"]
    assert isinstance(shoal.get(refs[1], return_exceptions=True), ValueError)
    with pytest.raises(shoal.errors.OptionError, match="return_exceptions"):
        shoal.get(refs, return_exceptions=1)


def test_a_timeout_of_the_task_is_its_own_error(cluster):
    @shoal.remote
    def late():
        raise TimeoutError

    with pytest.raises(TimeoutError) as caught:
        shoal.get(late.remote(), timeout=30)
    assert type(caught.value) is TimeoutError
    with pytest.raises(shoal.errors.GetTimeoutError):
        shoal.get(shoal.remote(time.sleep).remote(1), timeout=0.01)

"""``shoal.init(inline=True)``: the same API in the calling process."""

from __future__ import annotations

import asyncio
import bdb
import builtins
import os
import subprocess
import sys
import threading
import time
import traceback

import psutil
import pytest

import shoal
from shoal.errors import (
    ActorDiedError,
    NameTakenError,
    NestingError,
    NotInitializedError,
    OptionError,
    SerializationError,
    TaskCancelledError,
)


@pytest.fixture
def inline():
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    with shoal.init(inline=True, num_cpus=2) as card:
        yield card
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= children
    assert not shoal.is_initialized()


@shoal.remote
def add(x, y=1):
    return x + y


@shoal.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, x=1):
        self.value += x
        return self.value

    def crash(self):
        raise RuntimeError("inside")

    def leave(self):
        shoal.exit_actor()

    def numbers(self, count):
        for number in range(count):
            self.value += 1
            yield number


class Async:
    def __init__(self):
        self.queue = asyncio.Queue()

    async def put(self, item):
        await self.queue.put(item)

    async def take(self):
        return await self.queue.get()

    async def numbers(self, count):
        for number in range(count):
            await asyncio.sleep(0)
            yield number


# -- tasks -------------------------------------------------------------------------------------------------------


def test_tasks_run_here_and_now(inline):
    ref = shoal.remote(lambda: (os.getpid(), threading.get_ident())).remote()
    assert shoal.get(ref) == (os.getpid(), threading.get_ident())
    assert shoal.get(add.remote(add.remote(1), y=add.remote(2))) == 5
    assert shoal.get(shoal.put({"a": [1, 2]})) == {"a": [1, 2]}


def test_arguments_and_values_are_copies_as_in_a_cluster(inline):
    given = [1]

    @shoal.remote
    def append(items):
        items.append(2)
        return items

    ref = append.remote(given)
    shoal.get(ref).append(3)
    assert given == [1] and shoal.get(ref) == [1, 2]
    with pytest.raises(SerializationError):
        append.remote(threading.Lock())


def test_several_values_and_none(inline):
    @shoal.remote(num_returns=2)
    def pair():
        return 1, 2

    assert shoal.get(pair.remote()) == [1, 2]
    assert pair.options(num_returns=0).remote() is None
    with pytest.raises(ValueError, match="num_returns=3"):
        shoal.get(pair.options(num_returns=3).remote()[0])


def test_generators_make_values_when_asked(inline):
    made = []

    builtins.shoal_made = made  # the function is a copy, as in a cluster

    @shoal.remote
    def counting():
        for number in range(3):
            builtins.shoal_made.append(number)
            yield number

    try:
        stream = counting.remote()
        assert made == []
        assert shoal.get(next(stream)) == 0 and made == [0]
        ready, _ = shoal.wait([stream])
        assert ready == [stream] and made == [0, 1]
        assert [shoal.get(ref) for ref in stream] == [1, 2]
        assert list(stream) == []
    finally:
        del builtins.shoal_made


def test_a_dropped_generator_is_closed(inline, tmp_path):
    @shoal.remote
    def numbers(path):
        try:
            yield from range(100)
        finally:
            path.touch()

    stream = numbers.remote(tmp_path / "closed")
    next(stream)
    del stream
    shoal.put(1)
    assert (tmp_path / "closed").exists()
    stream = numbers.remote(tmp_path / "cancelled")
    next(stream)
    shoal.cancel(stream)
    assert (tmp_path / "cancelled").exists()
    with pytest.raises(TaskCancelledError):
        shoal.get(next(stream))


def test_errors_keep_their_frames(inline):
    @shoal.remote
    def fail(x):
        detail = f"x is {x}"
        raise ValueError(detail)

    ref = fail.remote(7)
    with pytest.raises(ValueError, match="x is 7") as caught:
        shoal.get(add.remote(ref))
    frame = traceback.walk_tb(caught.value.__traceback__)
    assert {"x": 7, "detail": "x is 7"} in [frame.f_locals for frame, _ in frame]
    assert shoal.why(ref).state == "failed"


SCRIPT = """
import shoal

@shoal.remote
def looked_at(x):
    y = x + 1
    breakpoint()
    return y

with shoal.init(inline=True):
    print("result", shoal.get(looked_at.remote(1)))
"""


def test_breakpoints_stop(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    commands = "p ('x', x, 'y', y)\n!y = 40\nc\n"
    run = subprocess.run([sys.executable, script], input=commands, capture_output=True, text=True, timeout=60)
    assert "('x', 1, 'y', 2)" in run.stdout and "result 40" in run.stdout, run.stdout + run.stderr


def test_leaving_the_debugger_ends_the_cell(inline):
    @shoal.remote
    def looked_at():
        raise bdb.BdbQuit

    with pytest.raises(bdb.BdbQuit):
        looked_at.remote()


def test_the_stop_button_ends_the_cell(inline):
    @shoal.remote
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.remote()


def test_retries(inline, tmp_path):
    @shoal.remote(max_retries=3, retry_exceptions=[OSError])
    def flaky(path):
        with path.open("a") as file:
            file.write("x")
        if len(path.read_text()) < 3:
            raise OSError("not yet")
        return shoal.get_runtime_context().attempt

    assert shoal.get(flaky.remote(tmp_path / "tries")) == 2


def test_nested_tasks_and_recursion_without_end(inline):
    @shoal.remote
    def fibonacci(n):
        return n if n < 2 else sum(shoal.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))

    assert shoal.get(fibonacci.remote(7)) == 13

    @shoal.remote
    def forever():
        return shoal.get(forever.remote())

    with pytest.raises((NestingError, RecursionError)):
        shoal.get(forever.remote())


def test_async_functions_with_and_without_a_loop(inline):
    @shoal.remote
    async def late(x):
        await asyncio.sleep(0)
        return x

    @shoal.remote
    async def outer(x):
        return await late.remote(x) + 1

    assert shoal.get(outer.remote(1)) == 2

    async def in_a_notebook():
        return await outer.remote(2), shoal.get(late.remote(5))

    assert asyncio.run(in_a_notebook()) == (3, 5)


# -- actors ------------------------------------------------------------------------------------------------------


def test_actors_keep_state_until_they_end(inline):
    counter = Counter.remote(10)
    assert [shoal.get(counter.add.remote()) for _ in range(3)] == [11, 12, 13]
    with pytest.raises(RuntimeError, match="inside"):
        shoal.get(counter.crash.remote())
    assert [shoal.get(ref) for ref in counter.numbers.remote(2)] == [0, 1]
    assert shoal.get(counter.add.remote()) == 16
    assert shoal.why(counter).state == "idle"
    shoal.kill(counter)
    with pytest.raises(ActorDiedError, match="it was killed"):
        shoal.get(counter.add.remote())
    assert shoal.why(counter).state == "dead"


def test_actors_stop_exit_and_restart(inline):
    counter = Counter.options(max_restarts=1).remote()
    shoal.get(counter.add.remote())
    shoal.kill(counter, no_restart=False)
    assert shoal.get(counter.add.remote()) == 1
    shoal.kill(counter, no_restart=False)
    with pytest.raises(ActorDiedError):
        shoal.get(counter.add.remote())
    other = Counter.remote()
    shoal.stop(other)
    with pytest.raises(ActorDiedError, match="stopped"):
        shoal.get(other.add.remote())
    third = Counter.remote()
    assert shoal.get(third.leave.remote()) is None
    with pytest.raises(ActorDiedError, match="exit_actor"):
        shoal.get(third.add.remote())


def test_an_init_that_raises(inline):
    @shoal.remote
    class Broken:
        def __init__(self):
            raise LookupError("no such thing")

        def method(self):
            pass

    with pytest.raises(LookupError, match="no such thing"):
        shoal.get(Broken.remote().method.remote())


def test_async_actors_keep_their_loop(inline):
    actor = shoal.remote(Async).remote()
    shoal.get(actor.put.remote(1))
    assert shoal.get(actor.take.remote()) == 1
    assert [shoal.get(ref) for ref in actor.numbers.remote(3)] == [0, 1, 2]

    async def in_a_notebook():
        await actor.put.remote(2)
        return await actor.take.remote()

    assert asyncio.run(in_a_notebook()) == 2


def test_names(inline):
    first = Counter.options(name="counter", lifetime="detached").remote(1)
    assert shoal.get_actor("counter") == first
    with pytest.raises(NameTakenError):
        Counter.options(name="counter").remote()
    assert Counter.options(name="counter", get_if_exists=True).remote() == first
    second = Counter.options(name="counter", on_redefine="replace").remote(5)
    assert shoal.get(shoal.get_actor("counter").add.remote()) == 6
    with pytest.raises(ActorDiedError):
        shoal.get(first.add.remote())
    del second
    with pytest.raises(ValueError, match="no actor called"):
        shoal.put(1)
        shoal.get_actor("counter")


def test_handles_travel_and_actors_end_with_their_last(inline):
    @shoal.remote
    def use(handles):
        return shoal.get(handles[0].add.remote(5))

    counter = Counter.remote()
    assert shoal.get(use.remote([counter])) == 5
    assert len(inline.snapshot()["actors"]) == 1
    del counter
    shoal.put(1)
    assert inline.snapshot()["actors"] == []


# -- everything else ---------------------------------------------------------------------------------------------


def test_front_doors(inline):
    assert list(shoal.map(abs, [-1, 2, -3])) == [1, 2, 3]
    refs = [add.remote(i) for i in range(5)]
    assert sorted(shoal.get(list(shoal.as_completed(refs)))) == [1, 2, 3, 4, 5]
    with shoal.Executor() as executor:
        assert executor.submit(pow, 2, 5).result(10) == 32
    with shoal.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    pool = shoal.ActorPool([Counter.remote(), Counter.remote()])
    assert sorted(pool.map(lambda actor, x: actor.add.remote(x), [1, 1])) == [1, 1]
    queue = shoal.Queue()
    queue.put("x")
    assert queue.get(timeout=5) == "x"
    with shoal.placement_group([{"num_cpus": 1}]) as group:
        assert shoal.get(add.options(scheduling_strategy=group).remote(1)) == 2


def test_the_card_and_the_runtime_context(inline):
    shoal.get([add.remote(i) for i in range(3)])
    counter = Counter.remote()
    assert "inline, in this process" in repr(inline) and "4 finished" in repr(inline)  # `__init__` counts
    card = inline._repr_html_()
    assert "1 actor" in card and card.count("<td>0 of 2</td>") == 1 and "0 B of 0 B" not in card
    context = shoal.get(shoal.remote(shoal.get_runtime_context).remote())
    assert (context.task_name, context.executor_id, context.resources) == (
        "get_runtime_context",
        "inline",
        {"num_cpus": 1.0},
    )
    assert shoal.get_runtime_context().task_id == ""
    assert shoal.cluster_resources()["num_cpus"] == 2
    del counter


def test_nothing_is_left_behind(inline):
    refs = [add.remote(i) for i in range(10)]
    shoal.get(refs)
    owner = refs[0]._owner
    assert owner.num_objects() == 10
    del refs
    assert owner.num_objects() == 0


def test_the_session_ends(inline):
    ref = add.remote(1)
    counter = Counter.remote()
    shoal.shutdown()
    assert not shoal.is_initialized()
    with pytest.raises(NotInitializedError):
        shoal.get(ref)
    with pytest.raises(NotInitializedError):
        inline.snapshot()
    del counter


def test_what_does_not_go_together(inline):
    assert shoal.init(inline=True).id == inline.id
    with pytest.raises(OptionError, match="inline"):
        shoal.init("tls://127.0.0.1:1", inline=True)
    with pytest.raises(OptionError, match="inline"):
        shoal.init(inline="yes")
    with pytest.raises(OptionError, match="shutdown"):
        shoal.init("another-cluster")


def test_it_starts_in_no_time():
    begin = time.monotonic()
    with shoal.init(inline=True):
        assert shoal.get(add.remote(1)) == 2
    assert time.monotonic() - begin < 5


def test_stop_checks_its_timeout(inline):
    actor = shoal.remote(type("Idle", (), {})).remote()
    with pytest.raises(shoal.errors.OptionError, match="`timeout`"):
        shoal.stop(actor, timeout="1")


def test_sys_exit_ends_the_task_not_the_caller(inline):
    with pytest.raises(RuntimeError, match=r"sys\.exit\(3\)"):
        shoal.get(shoal.remote(lambda: sys.exit(3)).remote())

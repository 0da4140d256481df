"""Actors: several calls at once, names, restarts, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import shoal
from shoal.api import session


@shoal.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, amount=1):
        self.value += amount
        return self.value

    def pid(self):
        return os.getpid()

    def sleep(self, seconds):
        time.sleep(seconds)
        return self.value

    def crash(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Meeting:
    """Calls that wait until so many of them are under way at once."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size)

    def meet(self):
        self.barrier.wait(20)
        return threading.current_thread().name


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


# -- several calls at once ---------------------------------------------------------------------------------------


def test_threads_run_calls_at_once(cluster):
    actor = shoal.remote(Meeting).options(max_concurrency=4).remote(4)
    assert len(set(shoal.get([actor.meet.remote() for _ in range(4)], timeout=30))) == 4


def test_async_methods_run_at_once(cluster):
    @shoal.remote
    class Async:
        def __init__(self):
            self.waiting = 0
            self.all_there = asyncio.Event()

        async def meet(self, size):
            self.waiting += 1
            if self.waiting == size:
                self.all_there.set()
            await self.all_there.wait()
            return self.waiting

        def plain(self):
            return "plain"

        async def stream(self, count):
            for number in range(count):
                await asyncio.sleep(0)
                yield number

    actor = Async.remote()
    assert shoal.get([actor.meet.remote(500) for _ in range(500)], timeout=30) == [500] * 500
    assert shoal.get(actor.plain.remote(), timeout=30) == "plain"
    assert [shoal.get(ref) for ref in actor.stream.remote(5)] == [0, 1, 2, 3, 4]


def test_concurrency_is_bounded(embedded):
    @shoal.remote(max_concurrency=2)
    class Bounded:
        def __init__(self):
            self.now = self.most = 0

        async def run(self):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1
            return self.most

    actor = Bounded.remote()
    assert max(shoal.get([actor.run.remote() for _ in range(20)], timeout=30)) == 2


@pytest.mark.parametrize("kind", ["threads", "async"])
def test_a_blocked_group_does_not_block_the_others(embedded, tmp_path, kind):
    class Threads:
        @shoal.method(concurrency_group="io")
        def blocked(self):
            wait_for(tmp_path / kind)
            return "free"

        def quick(self):
            return "quick"

    class Async:
        @shoal.method(concurrency_group="io")
        async def blocked(self):
            await asyncio.to_thread(wait_for, tmp_path / kind)
            return "free"

        async def quick(self):
            return "quick"

    cls = Threads if kind == "threads" else Async
    actor = shoal.remote(concurrency_groups={"io": 1})(cls).remote()
    blocked = [actor.blocked.remote() for _ in range(3)]
    assert shoal.get(actor.quick.remote(), timeout=30) == "quick"
    (tmp_path / kind).touch()
    assert shoal.get(blocked, timeout=30) == ["free"] * 3


def test_what_concurrent_calls_print_goes_to_the_right_one(embedded):
    seen = []
    shoal.output.set_sink(seen.append)
    try:

        @shoal.remote
        class Printer:
            async def say(self, word):
                print(word, "begins")
                await asyncio.sleep(0.02)
                print(word, "ends")

        actor = Printer.remote()
        refs = [actor.say.options(name=f"say-{word}").remote(word) for word in "abcd"]
        shoal.get(refs, timeout=30)
    finally:
        shoal.output.set_sink(None)
    for word in "abcd":
        text = "".join(event.data for event in seen if event.task_name == f"say-{word}")
        assert text == f"{word} begins\n{word} ends\n"


def test_one_call_is_cancelled_and_the_state_stays(cluster):
    actor = Counter.remote(5)
    slow = actor.sleep.remote(60)
    queued = actor.add.remote(100)
    after = actor.add.remote()
    shoal.cancel(queued)
    time.sleep(0.2)
    shoal.cancel(slow)
    for ref in (slow, queued):
        with pytest.raises(shoal.errors.TaskCancelledError):
            shoal.get(ref, timeout=30)
    assert shoal.get(after, timeout=30) == 6
    with pytest.raises(shoal.errors.OptionError, match=r"shoal\.kill"):
        shoal.cancel(actor.sleep.remote(0.2), force=True)


@pytest.mark.parametrize("kind", ["threads", "async", "plain"])
def test_an_interrupt_hits_the_call_it_is_meant_for(embedded, kind):
    class Sync:
        def __init__(self):
            self.calls = 0

        def work(self, seconds):
            self.calls += 1
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.001)
            return self.calls

    class Async(Sync):
        async def work(self, seconds):
            self.calls += 1
            await asyncio.sleep(seconds)
            return self.calls

    actor = shoal.remote(Async if kind == "async" else Sync).options(max_concurrency=4 if kind == "threads" else 1)
    actor = actor.remote()
    shoal.get(actor.work.remote(0), timeout=30)
    for number in range(60):
        doomed = actor.work.remote(0.001 if number % 2 else 30)
        spared = actor.work.remote(0.002)
        time.sleep(0.001 * (number % 4))
        shoal.cancel(doomed)
        with contextlib.suppress(shoal.errors.TaskCancelledError):
            shoal.get(doomed, timeout=30)
        assert shoal.get(spared, timeout=30) > number


def test_calls_beyond_the_limit_are_refused(embedded):
    actor = Counter.options(max_pending_calls=2).remote()
    held = [actor.sleep.remote(0.5), actor.add.remote()]
    with pytest.raises(shoal.errors.PendingCallsLimitExceeded, match="`max_pending_calls` is 2") as caught:
        actor.add.remote()
    assert caught.value.limit == 2
    shoal.get(held, timeout=30)
    assert shoal.get(actor.add.remote(), timeout=30) == 2


def test_options_of_one_call_and_of_one_method(embedded):
    @shoal.remote
    class Pairs:
        @shoal.method(num_returns=2)
        def pair(self):
            return 1, 2

        def count(self, number):
            yield from range(number)

    actor = Pairs.remote()
    assert shoal.get(actor.pair.remote(), timeout=30) == [1, 2]
    assert shoal.get(actor.pair.options(num_returns=1).remote(), timeout=30) == (1, 2)
    assert [shoal.get(ref) for ref in actor.count.remote(3)] == [0, 1, 2]
    with pytest.raises(shoal.errors.OptionError, match="Did you mean `num_returns`"):
        shoal.method(num_return=2)
    with pytest.raises(shoal.errors.OptionError, match="concurrency group `io`"):

        @shoal.remote
        class Wrong:
            @shoal.method(concurrency_group="io")
            def work(self): ...


def test_a_time_limit_ends_a_call_and_not_the_actor(embedded):
    actor = Counter.remote(1)
    with pytest.raises(shoal.errors.TaskTimeoutError):
        shoal.get(actor.sleep.options(timeout=0.2).remote(60), timeout=30)
    assert shoal.get(actor.add.remote(), timeout=30) == 2


# -- names -------------------------------------------------------------------------------------------------------


def test_a_name_leads_to_the_actor_from_anywhere(cluster):
    actor = Counter.options(name="shared").remote(10)

    @shoal.remote
    def from_a_task():
        return shoal.get(shoal.get_actor("shared").add.remote())

    assert shoal.get(from_a_task.remote(), timeout=30) == 11
    assert shoal.get_actor("shared") == actor
    shoal.kill(actor)


def test_a_name_is_taken_kept_or_replaced(embedded, wait_until):
    first = Counter.options(name="one").remote(1)
    with pytest.raises(shoal.errors.NameTakenError, match="get_actor") as caught:
        Counter.options(name="one").remote(2)
    assert caught.value.name == "one"
    assert Counter.options(name="one", get_if_exists=True).remote(2) == first
    assert Counter.options(name="one", on_redefine="keep").remote(2) == first
    second = Counter.options(name="one", on_redefine="replace").remote(20)
    assert shoal.get(second.add.remote(), timeout=30) == 21
    assert shoal.get_actor("one") == second
    with pytest.raises(shoal.errors.ActorDiedError, match="another took its place"):
        shoal.get(first.add.remote(), timeout=30)
    states = [actor["state"] for actor in shoal.snapshot()["actors"] if actor["name"] == "one"]
    assert sorted(states) == ["alive", "dead"]
    shoal.kill(second)
    wait_until(lambda: "one" not in names(), "release of the name")
    third = Counter.options(name="one").remote(3)
    assert shoal.get(third.add.remote(), timeout=30) == 4
    del third
    wait_until(lambda: "one" not in names(), "release of the name with the last handle")


def names():
    return {actor["name"] for actor in shoal.snapshot()["actors"] if actor["state"] != "dead"}


def test_namespaces_keep_names_apart(embedded):
    here = Counter.options(name="n").remote(1)
    there = Counter.options(name="n", namespace="other").remote(2)
    assert here != there
    assert shoal.get_actor("n", namespace="other") == there
    with pytest.raises(ValueError, match="no actor called `m`"):
        shoal.get_actor("m")
    with pytest.raises(ValueError, match="in namespace `nowhere`"):
        shoal.get_actor("n", namespace="nowhere")
    shoal.kill(here)
    shoal.kill(there)


def test_a_named_actor_whose_class_does_not_travel_takes_no_name(embedded):
    lock = threading.Lock()
    with pytest.raises(shoal.errors.SerializationError):
        Counter.options(name="never").remote(lock)
    with pytest.raises(ValueError, match="no actor called `never`"):
        shoal.get_actor("never")


_OTHER_DRIVER = """
import sys, shoal
@shoal.remote
class Counter:
    def __init__(self): self.value = 0
    def add(self):
        self.value += 1
        return self.value
with shoal.init(sys.argv[1]):
    if sys.argv[2] == "create":
        actor = Counter.options(name="lasting", lifetime="detached").remote()
    else:
        actor = shoal.get_actor("lasting")
    print(shoal.get(actor.add.remote(), timeout=30))
    if sys.argv[2] == "kill":
        shoal.kill(actor)
"""


def test_a_detached_actor_outlives_its_driver(cluster, wait_until):
    def driver(what):
        command = [sys.executable, "-W", "ignore", "-c", _OTHER_DRIVER, cluster.id, what]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    if cluster.kind != "embedded":
        pytest.skip("another driver finds an embedded cluster by its id")
    assert driver("create") == "1"
    assert driver("again") == "2"
    mine = shoal.get_actor("lasting")
    assert shoal.get(mine.add.remote(), timeout=30) == 3
    del mine
    assert driver("kill") == "4"
    wait_until(lambda: "lasting" not in names(), "its end")
    with pytest.raises(shoal.errors.OptionError, match="needs a `name`"):
        Counter.options(lifetime="detached")


# -- restarts ----------------------------------------------------------------------------------------------------


def test_an_actor_comes_back_as_often_as_allowed(cluster):
    actor = Counter.options(max_restarts=2, name="phoenix").remote(7)
    for _ in range(2):
        pid = shoal.get(actor.pid.remote(), timeout=30)
        shoal.get(actor.add.remote(), timeout=30)
        with pytest.raises(shoal.errors.ActorUnavailableError, match="SIGKILL"):
            shoal.get(actor.crash.remote(), timeout=30)
        assert shoal.get(actor.add.remote(), timeout=30) == 8, "its state is that of a new one"
        assert shoal.get(actor.pid.remote(), timeout=30) != pid
        assert shoal.get_actor("phoenix") == actor
    with pytest.raises(shoal.errors.ActorDiedError, match="SIGKILL"):
        shoal.get(actor.crash.remote(), timeout=30)
    with pytest.raises(shoal.errors.ActorDiedError):
        shoal.get(actor.add.remote(), timeout=30)


def test_calls_are_made_again_if_asked(cluster, tmp_path):
    @shoal.remote(max_restarts=-1, max_task_retries=-1)
    class Shaky:
        def work(self, number):
            with open(tmp_path / "calls", "a") as file:
                file.write("x")
            if len((tmp_path / "calls").read_text()) in (3, 6):
                os.kill(os.getpid(), signal.SIGKILL)
            return number

    actor = Shaky.remote()
    assert shoal.get([actor.work.remote(i) for i in range(10)], timeout=60) == list(range(10))


def test_retries_of_exceptions_are_for_calls_too(embedded):
    @shoal.remote
    class Third:
        def __init__(self):
            self.calls = 0

        @shoal.method(retry_exceptions=[ValueError], max_task_retries=5)
        def work(self):
            self.calls += 1
            if self.calls < 3:
                raise ValueError("not yet")
            return self.calls

    assert shoal.get(Third.remote().work.remote(), timeout=30) == 3


def test_killing_may_count_as_a_crash(embedded):
    actor = Counter.options(max_restarts=1).remote(3)
    shoal.get(actor.add.remote(), timeout=30)
    shoal.kill(actor, no_restart=False)
    assert shoal.get(actor.add.remote(), timeout=30) == 4
    shoal.kill(actor)
    shoal.kill(actor)
    with pytest.raises(shoal.errors.ActorDiedError, match="it was killed"):
        shoal.get(actor.add.remote(), timeout=30)


def test_an_actor_whose_init_crashes_is_tried_as_often_as_allowed(embedded, tmp_path):
    @shoal.remote(max_restarts=2)
    class Crashing:
        def __init__(self):
            with open(tmp_path / "tries", "a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)

        def work(self): ...

    with pytest.raises(shoal.errors.ActorDiedError, match="SIGKILL"):
        shoal.get(Crashing.remote().work.remote(), timeout=30)
    assert (tmp_path / "tries").read_text() == "xxx"


def test_an_init_that_raises_is_not_tried_again(embedded, tmp_path):
    @shoal.remote(max_restarts=5)
    class Failing:
        def __init__(self):
            with open(tmp_path / "tries", "a") as file:
                file.write("x")
            raise LookupError("no such file")

        def work(self): ...

    actor = Failing.remote()
    with pytest.raises(shoal.errors.ActorDiedError, match="`__init__` raised LookupError: no such file"):
        shoal.get(actor.work.remote(), timeout=30)
    assert (tmp_path / "tries").read_text() == "x"


# -- the end -----------------------------------------------------------------------------------------------------


def test_stop_lets_calls_finish_and_runs_exit_handlers(cluster, tmp_path):
    @shoal.remote(max_restarts=5)
    class Tidy:
        def __init__(self):
            import atexit

            atexit.register((tmp_path / "atexit").touch)

        def __del__(self):
            (tmp_path / "del").touch()

        def slow(self):
            time.sleep(0.3)
            return "done"

    actor = Tidy.remote()
    ref = actor.slow.remote()
    shoal.stop(actor, timeout=30)
    assert shoal.get(ref, timeout=1) == "done"
    assert (tmp_path / "atexit").exists() and (tmp_path / "del").exists()
    with pytest.raises(shoal.errors.ActorDiedError, match="it was stopped"):
        shoal.get(actor.slow.remote(), timeout=30)
    with pytest.raises(shoal.errors.ActorDiedError):
        shoal.stop(actor, timeout=30)


def test_stop_gives_up_waiting_and_the_actor_still_stops(embedded):
    actor = Counter.remote()
    slow = actor.sleep.remote(1.0)
    with pytest.raises(shoal.errors.GetTimeoutError, match="has not stopped within"):
        shoal.stop(actor, timeout=0.1)
    assert shoal.get(slow, timeout=30) == 0
    with pytest.raises(shoal.errors.ActorDiedError):
        shoal.get(actor.add.remote(), timeout=30)


def test_an_actor_can_end_itself(cluster):
    @shoal.remote(max_restarts=3)
    class Leaver:
        def leave(self):
            shoal.exit_actor()

        def work(self):
            return 1

    actor = Leaver.remote()
    assert shoal.get(actor.work.remote(), timeout=30) == 1
    assert shoal.get(actor.leave.remote(), timeout=30) is None
    with pytest.raises(shoal.errors.ActorDiedError, match="exit_actor"):
        shoal.get(actor.work.remote(), timeout=30)
    with pytest.raises(RuntimeError, match="for the methods of an actor"):
        shoal.exit_actor()


def test_a_method_that_does_not_exist(embedded):
    actor = Counter.remote()
    with pytest.raises(AttributeError, match=r"has no method `ad`\. Did you mean `add`"):
        actor.ad.remote()
    for wrong in (shoal.kill, shoal.stop):
        with pytest.raises(TypeError, match="takes an actor's handle"):
            wrong("actor")


def test_an_actor_can_be_callable(embedded):
    @shoal.remote
    class Adder:
        def __call__(self, x):
            return x + 1

    assert shoal.get(Adder.remote().__call__.remote(1), timeout=30) == 2


def test_an_actor_whose_connection_breaks_keeps_its_state(cluster):
    """Calls under way fail, or are made again if they may be; later ones find the same process."""

    @shoal.remote
    class Counter:
        def __init__(self):
            self.count = 0

        def add(self, seconds=0):
            time.sleep(seconds)
            self.count += 1
            return self.count

        def pid(self):
            return os.getpid()

    def cut():
        owner = session._session.owner
        for stream in owner.peers.streams():
            owner.loop.call_soon_threadsafe(stream.abort)

    counter, patient = Counter.remote(), Counter.options(max_task_retries=-1).remote()
    pid, _, patients_pid = shoal.get([counter.pid.remote(), counter.add.remote(), patient.pid.remote()], timeout=30)
    slow = [counter.add.remote(0.3), patient.add.remote(0.3)]
    time.sleep(0.1)
    cut()
    after = [counter.pid.remote(), patient.pid.remote()]
    with pytest.raises(shoal.errors.ActorUnavailableError, match="the connection to it was lost"):
        shoal.get(slow[0], timeout=30)
    assert shoal.get(slow[1], timeout=30) >= 1
    assert shoal.get(after, timeout=30) == [pid, patients_pid]
    assert shoal.get(counter.add.remote(), timeout=30) >= 2

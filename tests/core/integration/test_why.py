"""``shoal.why``: what is waited for, on real processes."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import shoal
from shoal.errors import OptionError


@shoal.remote
def sleep_until(path):
    while not path.exists():
        time.sleep(0.01)


@shoal.remote
def same(x):
    return x


@shoal.remote
class Waiter:
    def sleep_until(self, path):
        while not path.exists():
            time.sleep(0.01)

    def get(self, refs):
        return shoal.get(refs[0])

    def meet(self, other, own):
        return shoal.get(other.call_back.remote(own), timeout=30)

    def call_back(self, own):
        return shoal.get(own.ping.remote(), timeout=30)

    def ping(self):
        return "pong"


def explained(what, state, seconds=10.0):
    """Ask until the answer has the state: work takes a moment to get where it waits."""
    deadline = time.monotonic() + seconds
    while True:
        answer = shoal.why(what)
        if answer.state == state or time.monotonic() > deadline:
            assert answer.state == state, answer
            return answer
        time.sleep(0.02)


@pytest.fixture
def door(tmp_path):
    """A file that lets everything end that waits for it."""
    path = tmp_path / "door"
    yield path
    path.touch()


def test_values_and_errors(embedded):
    assert shoal.why(shoal.put(1)).state == "ready"
    failed = shoal.remote(lambda: 1 / 0).remote()
    shoal.wait([failed])
    answer = shoal.why(failed)
    assert answer.state == "failed" and "ZeroDivisionError: division by zero" in answer.detail


def test_running_work_says_where_and_for_how_long(embedded, door):
    ref = sleep_until.remote(door)
    answer = explained(ref, "runs")
    assert "sleep_until" in answer.subject and "exec-" in answer.detail and answer.detail.endswith(" s")


def test_arguments_that_are_not_ready(embedded, door):
    data = sleep_until.options(name="the data").remote(door)
    explained(data, "runs")
    answer = explained(same.remote(data), "needs data")
    assert [cause.state for cause in answer.causes] == ["runs"] and "the data" in answer.causes[0].subject
    assert str(answer).splitlines()[1].startswith("└─ `the data`")


def test_resources_and_who_holds_them(embedded, door):
    holder = Waiter.options(name="holder", num_cpus=1).remote()
    running = holder.sleep_until.remote(door)
    explained(running, "runs")
    task = sleep_until.options(name="held by this").remote(door)
    explained(task, "runs")
    answer = explained(same.options(num_cpus=2).remote(1), "needs resources")
    assert "num_cpus=2" in answer.detail and "0 of 2 num_cpus free" in answer.detail
    holders = {cause.subject.split("(")[0].strip(): cause.detail for cause in answer.causes}
    assert holders["actor `holder`"] == "it holds num_cpus=1"
    assert "`held by this`" in holders["tasks of this process"]
    assert "`shoal.kill`" in answer.advice


def test_an_actor_without_room(embedded, door):
    work = [sleep_until.remote(door) for _ in range(2)]
    explained(work[1], "runs")
    waiting = Waiter.options(num_cpus=2).remote()
    assert explained(waiting, "needs resources").causes
    call = waiting.ping.remote()
    answer = explained(call, "needs its actor")
    assert answer.causes[0].state == "needs resources"
    door.touch()
    assert shoal.get(call, timeout=20) == "pong"


def test_a_placement_group_without_room(embedded, door):
    ref = sleep_until.remote(door)
    explained(ref, "runs")
    with shoal.placement_group([{"num_cpus": 2}]) as group:
        assert "num_cpus=2" in explained(group, "needs resources").detail


def test_a_busy_actor(embedded, door):
    actor = Waiter.remote()
    assert explained(actor, "idle").causes == ()
    first = actor.sleep_until.remote(door)
    explained(first, "runs")
    second = actor.ping.remote()
    answer = explained(second, "waits its turn")
    assert "Waiter.sleep_until" in answer.causes[0].subject and "max_concurrency" in answer.advice
    busy = explained(actor, "runs")
    assert "1 call under way, 1 behind it" in busy.detail


def test_a_call_behind_one_that_lacks_its_arguments(embedded, door):
    actor = Waiter.remote()
    shoal.get(actor.ping.remote(), timeout=20)
    data = sleep_until.remote(door)
    blocked = actor.get.remote(data)
    answer = explained(actor.ping.remote(), "waits its turn")
    assert "order" in answer.detail and answer.causes[0].state == "needs data"
    del blocked


def test_nested_work_is_followed_into_other_processes(embedded, door):
    @shoal.remote
    def outer(path):
        return shoal.get(sleep_until.options(name="inner").remote(path))

    ref = outer.remote(door)
    deadline = time.monotonic() + 10
    while (answer := explained(ref, "waits")).causes[0].state != "runs":
        assert time.monotonic() < deadline, answer
    assert "inner" in answer.causes[0].subject


def test_a_circle_of_waits_is_called_a_deadlock(embedded):
    one, two = Waiter.options(num_cpus=0).remote(), Waiter.options(num_cpus=0).remote()
    ref = one.meet.remote(two, one)
    deadline = time.monotonic() + 10
    while not (answer := shoal.why(ref)).deadlock:
        assert time.monotonic() < deadline, answer
        time.sleep(0.02)
    text = str(answer)
    assert text.count("Waiter.") >= 3 and "break the circle" in text
    shoal.kill(one)
    with pytest.raises(shoal.errors.ActorDiedError):
        shoal.get(ref, timeout=10)


def test_a_generator_that_waits_for_its_consumer(embedded):
    @shoal.remote(max_pending=2)
    def numbers():
        yield from range(100)

    stream = numbers.remote()
    last = next(stream)
    deadline = time.monotonic() + 10
    while "values were not taken" not in (text := str(shoal.why(stream._yields._new_ref(99)))):
        assert time.monotonic() < deadline, text
        time.sleep(0.02)
    assert shoal.get(last) == 0


def test_a_dead_actor(embedded):
    actor = Waiter.remote()
    shoal.get(actor.ping.remote(), timeout=20)
    shoal.kill(actor)
    assert "it was killed" in explained(actor, "dead").detail


def states_of_threads(pid):
    """Return the state of each thread of a process: ``T`` for one that is stopped."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


def test_an_executor_that_does_not_answer_is_reported(embedded, door, wait_until):
    @shoal.remote
    class Stopped:
        def pid(self):
            return os.getpid()

        def wait(self):
            time.sleep(60)

    actor = Stopped.remote()
    pid = shoal.get(actor.pid.remote(), timeout=20)
    ref = actor.wait.remote()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: states_of_threads(pid) == {"T"}, "the stop of every thread")
        answer = shoal.why(ref, timeout=0.3)
        assert answer.state == "unknown" and "did not answer within 0.3 s" in answer.detail
    finally:
        os.kill(pid, signal.SIGCONT)
        shoal.kill(actor)


def test_it_can_be_asked_while_another_thread_waits(embedded, door):
    ref = sleep_until.remote(door)
    thread = threading.Thread(target=shoal.get, args=(ref,))
    thread.start()
    explained(ref, "runs")
    door.touch()
    thread.join(10)
    assert explained(ref, "ready")


@pytest.mark.parametrize("what", [1, None, "obj-1", [shoal.ObjectRef]])
def test_only_what_can_be_explained(embedded, what):
    with pytest.raises(TypeError, match="`why` takes a ref"):
        shoal.why(what)


@pytest.mark.parametrize("timeout", [0, -1, "soon"])
def test_the_timeout_is_a_number_of_seconds(embedded, timeout):
    with pytest.raises(OptionError, match="timeout"):
        shoal.why(shoal.put(1), timeout=timeout)

"""What can be asked for a task: several results, retries, a time limit; and how it is stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.api import session


@shoal.remote
def same(x):
    return x


def pid_file(directory):
    return [int(line) for line in (directory / "pids").read_text().split()] if (directory / "pids").exists() else []


# -- several results ---------------------------------------------------------------------------------------------


def test_several_results_are_several_refs(cluster):
    @shoal.remote(num_returns=3)
    def three():
        return 1, np.ones(50_000), shoal.put("inner")

    first, second, third = three.remote()
    assert shoal.get(first, timeout=30) == 1
    assert shoal.get(second).sum() == 50_000
    assert shoal.get(shoal.get(third)) == "inner"
    assert shoal.get(same.remote(second)).sum() == 50_000


@pytest.mark.parametrize(("count", "value"), [(2, (1, 2, 3)), (2, 5), (3, [1])])
def test_a_wrong_number_of_results_is_said(embedded, count, value):
    refs = same.options(num_returns=count).remote(value)
    for ref in refs:
        with pytest.raises(ValueError, match=f"`num_returns={count}` and returned"):
            shoal.get(ref, timeout=30)


def test_a_generators_values_can_be_several_results(embedded):
    @shoal.remote(num_returns=3)
    def three():
        yield from "abc"

    assert shoal.get(three.remote(), timeout=30) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="returned 3 values"):
        shoal.get(three.options(num_returns=2).remote(), timeout=30)
    with pytest.raises(TypeError, match="returned a generator, which cannot travel"):
        shoal.get(three.options(num_returns=1).remote(), timeout=30)


def test_no_result_one_result_and_many(embedded, tmp_path):
    @shoal.remote(num_returns=0)
    def nothing():
        (tmp_path / "ran").touch()

    assert nothing.remote() is None
    assert shoal.get(same.options(num_returns=1).remote([7]), timeout=30) == [7]
    refs = same.options(num_returns=500).remote(list(range(500)))
    assert shoal.get(refs, timeout=30) == list(range(500))
    assert (tmp_path / "ran").exists()


def test_an_error_is_every_results(embedded):
    @shoal.remote(num_returns=2)
    def fail():
        raise KeyError("both")

    for ref in fail.remote():
        with pytest.raises(KeyError, match="both"):
            shoal.get(ref, timeout=30)


# -- retries -----------------------------------------------------------------------------------------------------


def counting(directory, error):
    """Return a remote function that fails with *error* until it has been called three times."""

    @shoal.remote
    def count():
        with open(directory / "calls", "a") as file:
            file.write("x")
        calls = len((directory / "calls").read_text())
        if calls < 3:
            raise error
        return calls, shoal.get_runtime_context().attempt

    return count


@pytest.mark.parametrize("which", [True, [KeyError, ValueError], ValueError])
def test_exceptions_are_retried_if_asked(cluster, tmp_path, which):
    task = counting(tmp_path, ValueError("again")).options(retry_exceptions=which)
    assert shoal.get(task.remote(), timeout=30) == (3, 2)


@pytest.mark.parametrize(
    "options", [{}, {"retry_exceptions": [KeyError]}, {"retry_exceptions": True, "max_retries": 0}]
)
def test_other_exceptions_are_not(embedded, tmp_path, options):
    with pytest.raises(ValueError, match="again"):
        shoal.get(counting(tmp_path, ValueError("again")).options(**options).remote(), timeout=30)
    assert (tmp_path / "calls").read_text() == "x"


def test_retries_end(embedded, tmp_path):
    task = counting(tmp_path, ValueError("again")).options(retry_exceptions=True, max_retries=1)
    with pytest.raises(ValueError, match="again") as caught:
        shoal.get(task.remote(), timeout=30)
    assert any("attempt 2" in note for note in caught.value.__notes__)


def test_retries_without_end_survive_more_crashes_than_the_default(cluster, tmp_path):
    @shoal.remote(max_retries=-1)
    def crash():
        with open(tmp_path / "calls", "a") as file:
            file.write("x")
        if len((tmp_path / "calls").read_text()) < 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return "at last"

    assert shoal.get(crash.remote(), timeout=60) == "at last"


# -- time limits -------------------------------------------------------------------------------------------------


def test_a_running_task_ends_at_its_time_limit(cluster, tmp_path, wait_until):
    @shoal.remote(timeout=0.5)
    def long():
        try:
            time.sleep(60)
        finally:
            (tmp_path / "cleaned").touch()

    begin = time.monotonic()
    with pytest.raises(shoal.errors.TaskTimeoutError, match=r"within 0\.5 s .* while it ran") as caught:
        shoal.get(long.remote(), timeout=30)
    assert time.monotonic() - begin < 10
    assert isinstance(caught.value, TimeoutError) and caught.value.timeout == 0.5
    wait_until(lambda: (tmp_path / "cleaned").exists(), "the interrupt")


def test_a_queued_task_ends_at_its_time_limit(embedded):
    blockers = [shoal.remote(time.sleep).remote(30) for _ in range(2)]
    with pytest.raises(shoal.errors.TaskTimeoutError, match="before it could begin"):
        shoal.get(same.options(timeout=0.3).remote(1), timeout=30)
    for blocker in blockers:
        shoal.cancel(blocker)
    assert shoal.get(same.options(timeout=30).remote(1), timeout=30) == 1


def test_a_task_that_does_not_heed_its_limit_goes_with_its_process(embedded, tmp_path, wait_until):
    @shoal.remote(timeout=0.3)
    def stubborn():
        (tmp_path / "pids").write_text(str(os.getpid()))
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(60)

    with pytest.raises(shoal.errors.TaskTimeoutError):
        shoal.get(stubborn.remote(), timeout=30)
    (pid,) = pid_file(tmp_path)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the process")
    assert shoal.get(same.remote(2), timeout=30) == 2


# -- cancelling --------------------------------------------------------------------------------------------------


def test_force_ends_code_that_heeds_no_interrupt(cluster, tmp_path, wait_until):
    @shoal.remote(max_retries=3)
    def stubborn():
        with open(tmp_path / "pids", "a") as file:
            file.write(f"{os.getpid()}\n")
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(60)

    ref = stubborn.remote()
    wait_until(lambda: pid_file(tmp_path), "the start")
    shoal.cancel(ref)
    assert shoal.wait([ref], timeout=0.5)[0] == []
    shoal.cancel(ref, force=True)
    shoal.cancel(ref, force=True)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(ref, timeout=30)
    assert len(pid_file(tmp_path)) == 1, "it was not run again"
    assert shoal.get(same.remote(3), timeout=30) == 3


@pytest.mark.parametrize("recursive", [True, False])
def test_children_are_cancelled_unless_told_otherwise(embedded, tmp_path, wait_until, recursive):
    @shoal.remote
    def child():
        (tmp_path / "child").touch()
        time.sleep(1.5)
        (tmp_path / "child done").touch()

    @shoal.remote(num_cpus=0)
    def parent():
        ref = child.remote()
        keep.append(ref)
        shoal.get(ref)

    keep = []
    ref = parent.remote()
    wait_until((tmp_path / "child").exists, "the start of the child")
    shoal.cancel(ref, recursive=recursive)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(ref, timeout=30)
    time.sleep(2.0)
    assert (tmp_path / "child done").exists() != recursive


def test_cancelling_what_has_ended_changes_nothing(embedded):
    ref = same.remote(4)
    assert shoal.get(ref, timeout=30) == 4
    shoal.cancel(ref)
    shoal.cancel(ref, force=True)
    assert shoal.get(ref) == 4


def test_code_can_ask_whether_it_was_cancelled(embedded, tmp_path, wait_until):
    @shoal.remote
    def polite():
        (tmp_path / "started").touch()
        while not shoal.get_runtime_context().is_cancelled():
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(0.01)
        (tmp_path / "asked").touch()

    ref = polite.remote()
    wait_until((tmp_path / "started").exists, "the start")
    shoal.cancel(ref)
    shoal.wait([ref], timeout=30)
    assert (tmp_path / "asked").exists()


# -- nesting -----------------------------------------------------------------------------------------------------


def test_tasks_nest_deeper_than_there_are_cpus(cluster):
    @shoal.remote
    def down(depth):
        return depth if not depth else shoal.get(down.remote(depth - 1))

    assert shoal.get(down.remote(12), timeout=60) == 0


def test_a_recursion_without_end_is_an_error(embedded):
    @shoal.remote
    def down(depth):
        return shoal.get(down.remote(depth + 1))

    with pytest.raises(shoal.errors.NestingError, match="recursion without end") as caught:
        shoal.get(down.remote(0), timeout=100)
    assert isinstance(caught.value, RecursionError)
    assert shoal.get(same.remote(5), timeout=30) == 5


# -- waiting -----------------------------------------------------------------------------------------------------


def test_waiting_looks_no_further_than_it_has_to(embedded):
    owner = session._session.owner
    pending = shoal.remote(time.sleep).remote(0.5)
    refs = [pending, shoal.put(1), *[object()] * 10_000]
    assert owner.find_ready(refs) == 1
    assert owner.find_ready([pending, object()]) is None
    assert owner.find_first(refs, 0.1) == 1
    slow = [pending, *(shoal.remote(time.sleep).remote(30) for _ in range(60)), shoal.put(2)]
    assert owner.find_first(slow, None) == 61
    assert owner.find_first([pending] * 60, None) is None
    for ref in slow[1:-1]:
        shoal.cancel(ref)
    many = [shoal.put(i) for i in range(200)]
    for number in range(200):
        ready, many = shoal.wait(many)
        assert shoal.get(ready) == [number]


def test_no_thread_is_left_by_waits_that_ran_out_of_time(embedded):
    before = threading.active_count()
    ref = shoal.remote(time.sleep).remote(5)
    for _ in range(50):
        assert shoal.wait([ref], timeout=0.001) == ([], [ref])
    assert threading.active_count() == before
    owner = session._session.owner
    assert len(owner.table.get(ref.id).waiters) <= 2
    shoal.cancel(ref)


def test_no_lease_idles_while_others_wait(embedded):
    """Four owners at once on two CPUs: none keeps a warm lease that another one needs."""

    @shoal.remote
    def one():
        return 1

    @shoal.remote
    class Submitter:
        def sum(self, count):
            return sum(shoal.get([one.remote() for _ in range(count)]))

    submitters = [Submitter.remote() for _ in range(4)]
    shoal.get([submitter.sum.remote(1) for submitter in submitters], timeout=30)
    begin = time.monotonic()
    for _ in range(16):
        assert shoal.get([submitter.sum.remote(300) for submitter in submitters], timeout=30) == [300] * 4
    # Each kept lease would cost the round a second.
    assert time.monotonic() - begin < 8


def test_force_ends_code_that_lets_no_message_in(cluster, tmp_path, wait_until):
    """It holds the interpreter's lock: the node ends its process."""

    @shoal.remote(max_retries=0)
    def deaf(path):
        Path(path).touch()
        ctypes.PyDLL(None).sleep(600)

    ref = deaf.remote(str(tmp_path / "begun"))
    wait_until((tmp_path / "begun").exists, "the task's begin", 30)
    shoal.cancel(ref, force=True)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(ref, timeout=20)
    assert shoal.get(same.remote(1), timeout=20) == 1

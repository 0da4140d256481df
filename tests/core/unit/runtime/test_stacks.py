"""Stacks and samples of the threads of this very process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shoal.observe.profiles import functions_of
from shoal.runtime.sampler import sample
from shoal.runtime.stack_signal import NUMBER, ask_for_stacks
from shoal.runtime.stacks import around, describe_coroutines, describe_threads, is_users, mark_users


@contextmanager
def thread(function: Callable[[threading.Event], None], name: str) -> Iterator[threading.Thread]:
    stop = threading.Event()
    started = threading.Thread(target=function, args=(stop,), name=name, daemon=True)
    started.start()
    try:
        yield started
    finally:
        stop.set()
        started.join(10)


def spin_hard(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1_000))


def wait_patiently(stop: threading.Event) -> None:
    stop.wait(60)


def test_files_are_the_users_shoals_or_a_librarys() -> None:
    import psutil

    import shoal

    assert is_users(__file__) and is_users("<ipython-input-1-ab>")
    assert not any(map(is_users, (threading.__file__, psutil.__file__, shoal.__file__, "<frozen importlib>")))


def test_what_leads_to_the_users_code_is_left_out() -> None:
    import shoal

    ours = shoal.__file__
    assert around([threading.__file__, ours, "/me/x.py", ours], str) == 2
    assert around([threading.__file__, ours, threading.__file__], str) == 2
    assert around([threading.__file__, ours], str) == around([], str) == 0


def test_threads_are_described_with_the_users_frames_marked() -> None:
    with thread(wait_patiently, "patient") as one, thread(wait_patiently, "sleeper") as other:
        text = describe_threads({one.ident or 0: "`train` (task-1)"}, {other.ident or 0: "waits for work"})
    first, *_ = text.split("\n\n")
    lines = first.splitlines()
    assert lines[0] == "thread patient runs `train` (task-1)"
    assert lines[1].startswith(f'> File "{__file__}", line ') and lines[1].endswith("in wait_patiently")
    assert lines[2] == ">     stop.wait(60)"
    assert any(line.startswith("  File") and line.endswith("in Event.wait") for line in lines)
    assert "thread sleeper: waits for work" in text and "thread MainThread: shoal's own" in text


def test_idle_threads_of_pools_are_one_line() -> None:
    with concurrent.futures.ThreadPoolExecutor(1, "pool") as pool:
        pool.submit(int).result(10)
        deadline = time.monotonic() + 10
        while "thread pool_0: waits for work" not in (text := describe_threads({}, {})):
            assert time.monotonic() < deadline, text


def test_coroutines_are_described_down_to_what_they_wait_for() -> None:
    async def inner() -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        await inner()

    async def main() -> str:
        tasks = [asyncio.create_task(outer()) for _ in range(60)]
        await asyncio.sleep(0)
        text = describe_coroutines([(f"call {number}", task) for number, task in enumerate(tasks)])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return text + describe_coroutines([("over", tasks[0])])

    text = asyncio.run(main())
    head, first, _, second, *_ = text.splitlines()
    assert head == "coroutine runs call 0"
    assert first.startswith(">") and "outer" in first and "inner" in second
    assert "… and 10 more coroutines" in text and text.endswith("coroutine runs over")


def test_stacks_of_other_programs_are_marked_too() -> None:
    text = f'Stack:\n  File "{__file__}", line 3 in f\n  File "{threading.__file__}", line 1 in run'
    assert [line[0] for line in mark_users(text).splitlines()] == ["S", ">", " "]
    text = f'Thread 12 (idle): "MainThread"\n    f ({__file__}:3)\n    run ({threading.__file__}:982)\n'
    assert [line[:2] for line in mark_users(text).splitlines()] == ["Th", "> ", "  "]


def test_the_sampler_tells_work_from_waiting() -> None:
    others = set(sys._current_frames())  # this thread, and those of whatever runs the tests
    with thread(spin_hard, "spinner"), thread(wait_patiently, "patient"):
        samples = sample(1.0, 100, others)
    assert samples.looks >= 3 and samples.seconds > 0.9  # of 100: how many there are is the machine's load
    rows = functions_of(samples)
    assert rows[0].function in ("spin_hard", "Event.is_set")
    spinning = next(row for row in rows if row.function == "spin_hard")
    assert spinning.total > 0
    assert "wait_patiently" not in {row.function for row in rows}
    assert samples.idle >= samples.looks


@pytest.mark.parametrize(("seconds", "rate"), [(0.0, 100.0), (-1.0, 0.0), (0.05, 1e9)])
def test_the_sampler_keeps_to_its_limits(seconds: float, rate: float) -> None:
    began = time.monotonic()
    samples = sample(seconds, rate)
    assert time.monotonic() - began < 30
    assert 1 <= samples.rate <= 1_000 and samples.looks <= 100


@pytest.mark.skipif(not NUMBER, reason="Linux only")
def test_a_process_that_does_not_expect_the_signal_is_not_sent_it(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "exec-1.stacks").touch()
    with subprocess.Popen(["sleep", "60"]) as process:
        assert ask_for_stacks(tmp_path, "exec-1", process.pid, 1.0) == ""
        assert process.poll() is None
        process.kill()
    assert ask_for_stacks(tmp_path, "exec-1", process.pid, 1.0) == "", "it is gone"

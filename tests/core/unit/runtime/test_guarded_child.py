"""Code that hangs, crashes or changes things does none of that to us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from shoal.runtime.guarded_child import run_guarded


def call(function: Callable[[], bytes]) -> bytes:
    return function()


def hang_in_python() -> bytes:
    while True:
        pass


def hang_and_keep_the_interpreter() -> bytes:
    ctypes.PyDLL(None).pause()  # `PyDLL` holds the global lock during the call
    return b""


def exit_at_once() -> bytes:
    os._exit(3)


def crash() -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def is_reaped(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
        return False
    return True


def test_answers_come_in_order_and_of_any_size() -> None:
    sizes = [0, 1, 100_000, 3_000_000, 5]
    assert run_guarded(sizes, lambda size: b"x" * size, 10.0) == [b"x" * size for size in sizes]


def test_nothing_to_do_is_no_trouble() -> None:
    assert run_guarded([], call, 1.0) == []


def test_each_child_knows_what_this_process_has_noted_of_the_ones_before() -> None:
    noted: list[bytes | None] = []

    def answer(item: int) -> bytes:
        return exit_at_once() if item < 0 else str(noted).encode()

    found = run_guarded([1, -1, 2, -2, 3], answer, 10.0, max_children=2, on_answer=noted.append)
    assert found == noted == [b"[]", None, b"[b'[]', None]", None, None]


@pytest.mark.parametrize("bad", [hang_in_python, hang_and_keep_the_interpreter, exit_at_once, crash])
def test_an_item_that_does_not_come_back_costs_itself_only(bad: Callable[[], bytes]) -> None:
    begin = time.monotonic()
    assert run_guarded([lambda: b"before", bad, lambda: b"after"], call, 10.0) == [b"before", None, b"after"]
    assert time.monotonic() - begin < 5.0


def test_time_is_limited_in_all() -> None:
    begin = time.monotonic()
    items = [lambda: b"first", hang_in_python, lambda: b""]
    assert run_guarded(items, call, 0.5, patience=5.0) == [b"first", None, None]
    assert time.monotonic() - begin < 4.0


def test_many_bad_items_do_not_make_many_children() -> None:
    items = [exit_at_once, exit_at_once, lambda: b"third"]
    assert run_guarded(items, call, 10.0, max_children=2) == [None, None, None]
    assert run_guarded(items, call, 10.0, max_children=3) == [None, None, b"third"]


def test_what_a_child_does_is_not_seen_here(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    def change() -> bytes:
        seen.append(1)
        print("out")
        print("err", file=sys.stderr)
        os.write(2, b"raw")
        return str(os.getpid()).encode()

    (answer,) = run_guarded([change], call, 10.0)
    assert answer is not None and int(answer) != os.getpid() and is_reaped(int(answer))
    assert seen == [] and capfd.readouterr() == ("", "")


def test_a_child_keeps_no_file_of_ours_open() -> None:
    reading, writing = os.pipe()

    def open_files() -> bytes:
        return b" ".join(name.encode() for name in os.listdir("/proc/self/fd"))

    try:
        (answer,) = run_guarded([open_files], call, 10.0)
    finally:
        os.close(reading)
        os.close(writing)
    assert answer is not None and not {reading, writing} & set(map(int, answer.split()))


def test_an_interrupt_leaves_no_child_behind() -> None:
    children: list[int] = []
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)

    def interrupt_us_when_it_hangs() -> None:
        children.append(int.from_bytes(os.read(reading, 4)))
        os.kill(os.getpid(), signal.SIGINT)

    def hang() -> bytes:
        # The pipe's end is closed in the child like all others: go to it by way of the parent.
        with open(f"/proc/{os.getppid()}/fd/{writing}", "wb") as pipe:
            pipe.write(os.getpid().to_bytes(4))
        return hang_in_python()

    watcher = threading.Thread(target=interrupt_us_when_it_hangs)
    watcher.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_guarded([hang], call, 60.0)
            time.sleep(30)  # the interrupt is on its way
    finally:
        watcher.join()
        os.close(reading)
        os.close(writing)
    assert is_reaped(children[0])


def test_any_thread_may_ask() -> None:
    answers: list[list[bytes | None]] = []
    thread = threading.Thread(target=lambda: answers.append(run_guarded([lambda: b"x"], call, 10.0)))
    thread.start()
    thread.join()
    assert answers == [[b"x"]]

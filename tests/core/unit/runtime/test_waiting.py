"""Blocking a thread until values are ready."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from shoal.machines.objects import Entry
from shoal.model.messages import Payload
from shoal.runtime.waiting import Waiter


def ready(number: int, payload: Payload = ("i", b"")) -> Entry:
    return Entry(f"obj-{number}", "", payload)


def failed(entry: Entry) -> Payload | None:
    return entry.payload if entry.payload and entry.payload[0] == "e" else None


def test_it_wakes_when_all_have_come() -> None:
    waiter = Waiter(2)
    waiter(ready(1))
    assert waiter.missing == 1
    assert not waiter.wait(0)
    waiter(ready(2))
    assert waiter.missing == 0
    assert waiter.wait(0)


def test_more_than_were_waited_for_do_no_harm() -> None:
    waiter = Waiter(1)
    for number in range(3):
        waiter(ready(number))
    assert waiter.wait(0)


def test_an_error_ends_the_wait_at_once() -> None:
    waiter = Waiter(3, failed)
    waiter(ready(1))
    assert not waiter.wait(0)
    waiter(ready(2, ("e", b"first")))
    waiter(ready(3, ("e", b"second")))
    assert waiter.wait(0)
    assert waiter.failed == ("e", b"first")


def test_values_may_come_on_many_threads() -> None:
    waiter = Waiter(400)
    threads = [threading.Thread(target=lambda: [waiter(ready(n)) for n in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert waiter.wait(10)
    for thread in threads:
        thread.join()
    assert waiter.missing == 0


def test_a_time_out_is_kept() -> None:
    begin = time.monotonic()
    assert not Waiter(1).wait(0.02)
    assert 0.02 <= time.monotonic() - begin < 5


@pytest.mark.parametrize("timeout", [-1.0, 0.0])
def test_a_time_out_that_has_passed_does_not_wait(timeout: float) -> None:
    assert not Waiter(1).wait(timeout)


@pytest.mark.parametrize("timeout", [None, 1e300])
def test_a_wait_without_end_is_ended_by_the_value(timeout: float | None) -> None:
    waiter = Waiter(1)
    thread = threading.Thread(target=waiter, args=(ready(1),))
    thread.start()
    assert waiter.wait(timeout)
    thread.join()


def test_the_stop_button_ends_a_wait() -> None:
    """A real SIGINT to this thread, while it waits without end."""
    waiter = Waiter(1)
    main = threading.main_thread()
    assert threading.current_thread() is main and main.ident is not None
    thread = threading.Thread(target=signal.pthread_kill, args=(main.ident, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            waiter.wait(30)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)

"""Running code that may hang, crash or change things, on what this process holds, without a risk to this process.

A forked child sees every object as it is now. It works through a list and writes one answer for each item; one that
takes too long, or the child's life, costs that item and no other: the next child goes on behind it. Nothing that
happens in a child is seen here but its answers.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

#: What is usual; see :func:`run_guarded`.
PATIENCE, MAX_CHILDREN = 0.25, 4
_LENGTH_NBYTES = 8


def run_guarded(
    items: Sequence[T],
    answer: Callable[[T], bytes],
    seconds: float,
    *,
    patience: float = PATIENCE,
    max_children: int = MAX_CHILDREN,
    on_answer: Callable[[bytes | None], object] = lambda answer: None,
) -> list[bytes | None]:
    """Return what ``answer(item)`` returns for each item, as it would here; None where there was no answer.

    May be called on any thread; other threads go on meanwhile.

    Parameters
    ----------
    answer
        Called in a child, in the order of the items. It must not raise.
    seconds
        After this time those that are left have no answer.
    patience
        Seconds without a sign of life after which an item counts as one that hangs.
    max_children
        Each after the first follows an item that hung or crashed.
    on_answer
        Called here with each item's answer, in order, before the next child begins: what ``answer`` has changed in a
        child is not known to the next otherwise. It must not raise.
    """
    answers: list[bytes | None] = []

    def note(found: Sequence[bytes | None]) -> None:
        for one in found:
            answers.append(one)
            on_answer(one)

    deadline = time.monotonic() + seconds
    for _ in range(max_children):
        with contextlib.suppress(OSError):  # no process or no pipe to be had: no answers
            note(_ask_child(items[len(answers) :], answer, deadline, patience))
        if len(answers) == len(items) or time.monotonic() >= deadline:
            break
        note([None])
    note([None] * (len(items) - len(answers)))
    return answers


def _ask_child(items: Sequence[T], answer: Callable[[T], bytes], deadline: float, patience: float) -> list[bytes]:
    """Return the answers of one child, up to the item that it did not get over."""
    reading, writing = os.pipe()
    try:
        pid = _fork()
        if pid == 0:
            _serve(items, answer, writing, deadline)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        return list(_answers(reading, len(items), deadline, patience))
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # user code may wait for any child
            os.waitpid(pid, 0)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns where there are threads. Their locks may be held for ever in the child, hence the time limit.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _answers(reading: int, count: int, deadline: float, patience: float) -> Iterator[bytes]:
    poller = select.poll()
    poller.register(reading, select.POLLIN)
    received = bytearray()
    while count:
        left = min(patience, deadline - time.monotonic())
        if left <= 0 or not poller.poll(left * 1000):
            return
        part = os.read(reading, 1 << 16)
        if not part:
            return
        received += part
        while count and len(received) >= _LENGTH_NBYTES:
            end = _LENGTH_NBYTES + int.from_bytes(received[:_LENGTH_NBYTES])
            if len(received) < end:
                break
            yield bytes(received[_LENGTH_NBYTES:end])
            del received[:end]
            count -= 1


def _serve(items: Sequence[T], answer: Callable[[T], bytes], writing: int, deadline: float) -> None:
    """Be the child."""
    try:
        _detach(writing, deadline - time.monotonic())
        for item in items:
            data = answer(item)
            parts = memoryview(len(data).to_bytes(_LENGTH_NBYTES) + data)
            while parts:
                parts = parts[os.write(writing, parts) :]
    finally:
        os._exit(0)


def _detach(writing: int, seconds: float) -> None:
    """Let nothing that happens here reach the parent, and end soon even if the parent does not end this process."""
    gc.disable()  # finalizers may do anything
    for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(caught, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds) + PATIENCE)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    # Peers see the end of the parent, and its locks on files end, only when nobody else has them open.
    for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
        if int(name) > 2 and int(name) != writing:
            with contextlib.suppress(OSError):
                os.close(int(name))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives

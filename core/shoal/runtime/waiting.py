"""Blocking a user's thread until values are ready."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.machines.objects import Entry
    from shoal.model.messages import Payload


class NotReadyError(Exception):
    """A wait has run out of time; whoever asked for it says so in words."""


class Waiter:
    """Counts values that arrive, on whatever thread, and wakes the one that waits.

    A lock is the cheapest thing that a thread can wait on and that a signal (the notebook's stop button) interrupts.
    """

    __slots__ = ("_early", "_lock", "_tokens", "failed", "over")

    def __init__(self, count: int, early: Callable[[Entry], Payload | None] | None = None) -> None:
        """Wait for *count* values; ``early(entry)`` may return an error that ends the wait at once."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self._tokens = [None] * count
        self._early = early
        #: The error that ended the wait, if one did.
        self.failed: Payload | None = None
        #: Nobody waits any more.
        self.over = False

    @property
    def missing(self) -> int:
        return len(self._tokens)

    def __call__(self, entry: Entry) -> None:
        if self.over:
            return
        if self._early is not None and self.failed is None:
            self.failed = self._early(entry)
        try:
            self._tokens.pop()
        except IndexError:  # more came than were waited for
            return
        if not self._tokens or self.failed is not None:
            with contextlib.suppress(RuntimeError):  # another value has woken it in the same moment
                self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait for *timeout* seconds at most; returns whether all values came."""
        seconds = -1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX))
        return self._lock.acquire(timeout=seconds)

"""One place to wait at for many things: refs that become ready, and whatever else a thread has to be told."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any

from shoal.api.session import owner_or_init
from shoal.machines.objects import Entry
from shoal.model.errors import GetTimeoutError
from shoal.runtime.refs import ObjectRef
from shoal.runtime.yields import ObjectRefGenerator


class Arrivals:
    """A queue of events, to which refs add one when they are ready.

    For schedulers on top of shoal: one thread waits in :meth:`get`, and hears of its work, in the order in which it
    ends, and of what other threads :meth:`put`. Each ref costs the same, however many there are. Any method may be
    called on any thread.

    Examples
    --------
    >>> import shoal
    >>> from shoal.api.arrivals import Arrivals
    >>> with shoal.init(num_cpus=1):
    ...     arrivals = Arrivals()
    ...     arrivals.watch(shoal.put(1), "stored")
    ...     arrivals.get()
    'stored'
    """

    def __init__(self) -> None:
        #: No ref adds an event any more.
        self.over = False
        self._owner = owner_or_init()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._events: dict[str, tuple[Entry | None, Any]] = {}

    def watch(self, item: ObjectRef | ObjectRefGenerator, event: Any) -> None:
        """Add *event* when *item* is ready: a ref when its value or its error is there, a generator when its next value
        or its end is. A ref is watched once at a time."""
        ref = item._yields.next_ref if isinstance(item, ObjectRefGenerator) else item
        self._events[ref.id] = None, event
        (entry,) = self._owner.watch([ref], self)
        if ref.id in self._events:
            self._events[ref.id] = entry, event

    def put(self, event: Any) -> None:
        """Add *event* now."""
        self._queue.put(event)

    def get(self, timeout: float | None = None) -> Any:
        """Take the next event; waits for *timeout* seconds at most.

        A task that waits here lends its CPU, as in :func:`shoal.get`.

        Raises
        ------
        GetTimeoutError
            None came in time.
        """
        with contextlib.suppress(queue.Empty):
            return self._queue.get_nowait()
        entries = [entry for entry, _ in list(self._events.values()) if entry is not None]
        seconds = None if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX))
        try:
            with self._owner.telling_that_we_wait(entries):
                return self._queue.get(timeout=seconds)
        except queue.Empty:
            raise GetTimeoutError(f"Waited {timeout:g} s and nothing has come.", timeout=timeout) from None

    def close(self) -> None:
        """Let the refs go: they add nothing any more. Events that were put can still be taken."""
        self.over = True
        self._events.clear()

    def __call__(self, entry: Entry, /) -> None:
        """A ref is ready; on whatever thread brings it."""
        found = self._events.pop(entry.object_id, None)
        if found is not None and not self.over:
            self._queue.put(found[1])


__all__ = ["Arrivals"]

"""Reads a source on a thread of its own: what it takes from an iterable may take its time."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.api.arrivals import Arrivals
    from shoal_ml.batch.handles import Handle

#: What ends the runs that a source reads from, if it reads from any.
closers: contextvars.ContextVar[list[Callable[[], None]] | None] = contextvars.ContextVar("closers", default=None)

#: Seconds in which the thread ends when it is closed; it cannot be torn out of user code that blocks.
CLOSE_SECONDS = 1.0


class Feeder:
    """Gives one handle for each :meth:`pull`, as an event."""

    def __init__(self, begin: Callable[[], Iterator[Handle]], events: Arrivals) -> None:
        self._begin = begin
        self._events = events
        self._requests: queue.SimpleQueue[tuple[Callable[[Any], Any], Callable[[Any], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        self._closers: list[Callable[[], None]] = []

    def pull(self, then: Callable[[Handle | None], Any], failed: Callable[[BaseException], Any]) -> None:
        """Have ``then(handle)`` added to the events when the next handle is there, or ``then(None)`` at the end; or
        ``failed(error)``."""
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=lambda: context.run(self._serve), name="shoal-batch-source", daemon=True
            )
            self._thread.start()
        self._requests.put((then, failed))

    def close(self) -> None:
        """Read no further."""
        self._requests.put(None)
        for close in list(self._closers):
            close()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _serve(self) -> None:
        closers.set(self._closers)
        handles: Iterator[Handle] | None = None
        while (request := self._requests.get()) is not None:
            then, failed = request
            try:
                if handles is None:
                    handles = iter(self._begin())
                event = _bind(then, next(handles, None))
            except BaseException as error:  # boundary: user code; raised where results are taken
                event = _bind(failed, error)
            self._events.put(event)
        close = getattr(handles, "close", None)
        if close is not None:
            close()


def _bind(function: Callable[[Any], Any], value: Any) -> Callable[[], Any]:
    return lambda: function(value)


__all__ = ["Feeder", "closers"]

"""The door from any thread into the event loop, for events that need no answer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

#: Calls waiting from which on a thread that brings many more lets the loop run in between.
BURST = 256
#: Seconds it then sleeps: any sleep lets another thread have the interpreter; the system makes it some 50 µs.
PAUSE = 1e-6


class Inbox:
    """A queue of calls to be made on the loop, which is woken once for each burst of them.

    ``put`` takes no lock and never blocks, so that it may be called from anywhere, the garbage collector included.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Callable[[], None]) -> None:
        """*after* is called on the loop after each burst."""
        self._loop = loop
        self._after = after
        self._calls: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._woken = False

    def put(self, function: Callable[[Any], None], argument: Any) -> None:
        """Have ``function(argument)`` called on the loop, in the order of the puts; dropped if the loop has ended."""
        self._calls.append((function, argument))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed
                self._calls.clear()

    def put_and_give_way(self, function: Callable[[Any], None], argument: Any) -> None:
        """As :meth:`put`, on a thread that may bring calls faster than the loop can take them.

        Python lets a busy thread run for 5 ms whenever another wants to: too long for the loop, which waits for the
        network often and would do so for nothing, while the other end idles.
        """
        self.put(function, argument)
        if len(self._calls) >= BURST:
            time.sleep(PAUSE)

    def _drain(self) -> None:
        self._woken = False  # from here on, the next put schedules another drain
        calls = self._calls
        try:
            for _ in range(len(calls)):
                function, argument = calls.popleft()
                function(argument)
        except BaseException:  # a bug of ours, which the loop reports: what waits behind it has its turn all the same
            self._loop.call_soon(self._drain)
            raise
        self._after()

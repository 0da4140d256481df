"""A crew: threads that share a queue, of which no more are awake than the work has use for.

Python runs one thread at a time, and each that is awake and has nothing of its own to wait for makes all others
slower: sixteen threads on calls of ten microseconds do half of what one does. So a thread that ends its work takes the
next by itself, and another is called only if that helps: when no thread is awake, when most calls have been taking so
long (because they wait for something, as a rule) that they had better overlap, or when nothing has been taken from the
queue for :data:`STALL` seconds, because calls that used to be short are not any more.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

#: Seconds within which a short call has ended. While most are longer, each gets a thread as it comes.
SHORT = 0.0002
#: Short calls in a row that it takes to believe that calls are short after many that were not, and the reverse.
MEMORY = 8
#: Seconds without progress after which more threads are called, each time twice as many.
STALL = 0.002

#: ``call_later(seconds, function)``, as an event loop has it.
CallLater = Callable[[float, Callable[[], None]], object]


class Crew:
    """See the module's description. Work is taken in the order in which it came."""

    def __init__(self, name: str, limit: int, serve: Callable[[Any], None], call_later: CallLater) -> None:
        """``serve(item)`` does one piece of work, on one of at most *limit* threads; it must not raise."""
        self._name = name
        self._limit = limit
        self._serve = serve
        self._call_later = call_later
        self._lock = threading.Lock()
        self._queue: deque[Any] = deque()
        self._num_threads = 0
        #: Threads that have nothing to do, as the locks that they wait for.
        self._idle: list[threading.Lock] = []
        #: Above zero while most calls are long. One that just waited for its turn to run Python looks long, so that a
        #: mean would mislead.
        self._long = MEMORY
        #: How much has been taken from the queue, and had been when that was last looked at.
        self._num_taken = self._num_seen = 0
        self._look_due = False

    def put(self, item: Any) -> None:
        """Have *item* served when its turn comes."""
        self._queue.append(item)
        with self._lock:
            if self._long > 0 or self._num_threads == len(self._idle):
                self._call(1)
            if self._queue:
                self._look_soon()

    def _call(self, count: int) -> None:
        """Have this many more threads look at the queue, as far as there may be as many."""
        for _ in range(min(count, len(self._queue))):
            if self._idle:
                self._idle.pop().release()
            elif self._num_threads < self._limit:
                self._num_threads += 1
                name = f"shoal-{self._name or 'call'}-{self._num_threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()

    def _look_soon(self) -> None:
        if not self._look_due and (self._idle or self._num_threads < self._limit):
            self._look_due = True
            self._num_seen = self._num_taken
            self._call_later(STALL, self._look)

    def _look(self) -> None:
        with self._lock:
            self._look_due = False
            if self._queue:
                if self._num_taken == self._num_seen:
                    self._call(max(1, self._num_threads - len(self._idle)))
                self._look_soon()

    def _work(self) -> None:
        wake = threading.Lock()
        wake.acquire()
        while True:
            try:
                item = self._queue.popleft()
            except IndexError:
                with self._lock:
                    if self._queue:
                        continue
                    self._idle.append(wake)
                wake.acquire()
                continue
            self._num_taken += 1
            begin = time.perf_counter()
            self._serve(item)
            del item
            if time.perf_counter() - begin > SHORT:
                self._long = min(MEMORY, self._long + 1)
            else:
                self._long = max(-MEMORY, self._long - 1)

"""A limit on what a process spends on something that is not its work."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Bill:
    """What one occasion costs besides its time, in seconds."""

    def __init__(self) -> None:
        self.extra = 0.0

    def add(self, seconds: float) -> None:
        self.extra += seconds


class Allowance:
    """Seconds that may be spent: ``burst`` at once, and in the long run ``share`` of the time. For any thread."""

    def __init__(self, burst: float, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._share = share
        self._clock = clock
        self._left = burst
        self._counted = clock()
        self._lock = threading.Lock()

    def is_open(self) -> bool:
        """Whether anything is left."""
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._counted) * self._share)
            self._counted = now
            return self._left > 0

    @contextlib.contextmanager
    def spending(self) -> Iterator[Bill]:
        """Take off the time that passes inside, and what is added to the bill."""
        begin, bill = self._clock(), Bill()
        try:
            yield bill
        finally:
            spent = self._clock() - begin + bill.extra
            with self._lock:
                self._left -= spent

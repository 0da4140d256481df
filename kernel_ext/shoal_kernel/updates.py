"""When changing output is drawn."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Protocol

logger = logging.getLogger("shoal")
#: Seconds between two updates of the same output at least, and bytes that its updates may have in a second.
INTERVAL, RATE = 0.1, 400_000
#: Seconds without a change after which the form that is to last is drawn.
QUIET = 1.0


class Drawn(Protocol):
    """Output that is drawn again when it has changed."""

    def draw(self, saved: bool) -> int:
        """Draw; if *saved*, in the form that is to last. Returns about how many bytes that took."""


class _Plan:
    """When an output is drawn next, None for not at all, and how; and the earliest moment that is possible."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.saved = False
        self.not_before = 0.0


class Updater:
    """Draws what has changed, soon but not often, on a thread of its own that starts with the first change.

    It holds *lock*, which guards the outputs, while one is drawn.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._changed = threading.Condition()
        self._plans: weakref.WeakKeyDictionary[Drawn, _Plan] = weakref.WeakKeyDictionary()
        #: What there is a time for; it also keeps it alive.
        self._due: set[Drawn] = set()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def touch(self, output: Drawn) -> None:
        """Have *output* drawn: it has changed."""
        with self._changed:
            plan = self._plans.setdefault(output, _Plan())
            if self._stopped or (plan.due is not None and not plan.saved):
                return
            plan.due, plan.saved = max(time.monotonic(), plan.not_before), False
            self._due.add(output)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shoal-output", daemon=True)
                self._thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """End the thread, and draw for the last time what is due. Not to be called with the lock held."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        due, self._due = self._due, set()
        for output in due:
            self._draw(output, saved=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                output = self._take()
                if output is None:
                    return
                plan = self._plans[output]
                saved, plan.due = plan.saved, None
            self._draw(output, saved)
            with self._changed:
                if not saved and plan.due is None:
                    plan.due, plan.saved = time.monotonic() + QUIET, True
                    self._due.add(output)
            del output

    def _take(self) -> Drawn | None:
        """Wait for the next output whose time has come; None when this ends."""
        while not self._stopped:
            now = time.monotonic()
            times = {output: self._plans[output].due or now for output in self._due}
            output = min(times, key=lambda output: times[output], default=None)
            if output is not None and times[output] <= now:
                self._due.discard(output)
                return output
            self._changed.wait(None if output is None else times[output] - now)
        return None

    def _draw(self, output: Drawn, saved: bool) -> None:
        nbytes = 0
        try:
            with self._lock:
                nbytes = output.draw(saved)
        except Exception:  # boundary: what cannot be drawn must not end the drawing of everything else
            logger.exception("output of tasks cannot be drawn")
        with self._changed:
            plan = self._plans.setdefault(output, _Plan())
            plan.not_before = time.monotonic() + max(INTERVAL, nbytes / RATE)

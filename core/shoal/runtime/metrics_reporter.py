"""Tells the controller how the metrics of a process have changed, a few times a second at most."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from shoal.model.messages import MetricsReport
from shoal.observe.duration_metric import DURATIONS, duration_changes
from shoal.observe.functions import FunctionStats
from shoal.observe.metrics import REGISTRY

#: Seconds between two reports while there is news; and at least, when work has ended and there is no other.
INTERVAL, IDLE_INTERVAL = 0.25, 0.05


class MetricsReporter:
    """See the module's description. Lives on the owner's event loop."""

    def __init__(self, tell: Callable[[MetricsReport], None], stats: FunctionStats) -> None:
        """``tell(report)`` sends a report; *stats* knows how long the work of this owner took."""
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._stats = stats
        self._last = 0.0
        self._due = False
        self._told_durations = False

    def start(self) -> None:
        """Tell what is counted in this process from now on, and what was counted before and nobody was told."""
        REGISTRY.attach(self._wake)

    def close(self) -> None:
        """Tell the last news."""
        REGISTRY.detach(self._wake)
        self.report()

    def report(self) -> None:
        """Tell the news now, if there is any."""
        self._last = self._loop.time()
        if REGISTRY.changed:
            self._tell(MetricsReport(*REGISTRY.take()))

    def work_ended(self) -> None:
        """This process has nothing to do, and may be ended for that."""
        if REGISTRY.changed and self._loop.time() - self._last >= IDLE_INTERVAL:
            self.report()

    def report_durations(self) -> None:
        """Tell how long the work took that the owner has just reported."""
        found = self._stats.take_durations()
        if found:
            defined = () if self._told_durations else (DURATIONS,)
            self._told_durations = True
            self._tell(MetricsReport(defined, duration_changes(found)))

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop ends with the session
            self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_later(max(0.0, self._last + INTERVAL - self._loop.time()), self._report_due)

    def _report_due(self) -> None:
        self._due = False
        self.report()


__all__ = ["MetricsReporter"]

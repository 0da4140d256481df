"""Noticing processes that were stopped (``SIGSTOP``): they break no connection, and would be waited for, for ever.

That a process answers nothing is no sign of it: user code may hold the interpreter's lock for minutes. The kernel
knows.
"""

from __future__ import annotations

from collections.abc import Iterable

import psutil


class StoppedProcesses:
    """Remembers since when each of the processes looked at has been stopped."""

    def __init__(self, limit: float) -> None:
        """*limit*: seconds for which a process may be stopped; a debugger's is not."""
        self._limit = limit
        self._since: dict[int, float] = {}

    def look(self, pids: Iterable[int], now: float) -> list[int]:
        """Return those of *pids* that have been stopped for too long at *now* (monotonic)."""
        since: dict[int, float] = {}
        for pid in pids:
            try:
                stopped = psutil.Process(pid).status() == psutil.STATUS_STOPPED
            except psutil.Error:
                continue
            if stopped:
                since[pid] = self._since.get(pid, now)
        self._since = since
        return [pid for pid, begin in since.items() if now - begin >= self._limit]

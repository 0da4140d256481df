"""How busy the machine is. psutil's own measure is one for the process, and several nodes may live in one."""

from __future__ import annotations

import psutil


class CpuMeter:
    """Measures from one look to the next."""

    def __init__(self) -> None:
        self._busy, self._total = _times()

    def look(self) -> float:
        """Return the share of all CPUs' time since the last look that they were busy, 0 to 1."""
        busy, total = _times()
        spent, passed = busy - self._busy, total - self._total
        self._busy, self._total = busy, total
        return min(1.0, max(0.0, spent / passed)) if passed > 0 else 0.0


def _times() -> tuple[float, float]:
    times = psutil.cpu_times()
    # Linux counts what guests use as the user's, too.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total

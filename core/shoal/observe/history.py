"""How the cluster has been in the last minutes: one point a second, for curves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from shoal.observe.functions import Counts

#: Points kept, and seconds between two of them.
NUM_POINTS, STEP = 180, 1.0


class History:
    """See the module's description; the rows are the snapshot's ``history``."""

    def __init__(self) -> None:
        self._points: deque[dict[str, Any]] = deque(maxlen=NUM_POINTS)
        self._ended = 0

    def add(self, now: float, counts: Counts, nodes: Iterable[Mapping[str, Any]]) -> None:
        """Note how things are at *now*, about :data:`STEP` seconds after last time."""
        nodes = list(nodes)
        before = self._points[-1]["time"] if self._points else now - STEP
        ended, self._ended = counts.num_ended - self._ended, counts.num_ended
        cpus = sum(node["cpus"] for node in nodes)
        load = sum(node["cpu_ratio"] * node["cpus"] for node in nodes)
        self._points.append(
            {
                "time": round(now, 1),
                "running": counts.running,
                "queued": counts.queued,
                "tasks_per_second": round(ended / max(0.1, now - before), 1),
                "cpu_ratio": round(load / cpus, 3) if cpus else 0.0,
                "memory_used": sum(node["memory_used"] for node in nodes),
                "store_used": sum(node["store_used"] for node in nodes),
                "received_per_second": sum(node["received_per_second"] for node in nodes),
            }
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return the points, the oldest first."""
        return list(self._points)

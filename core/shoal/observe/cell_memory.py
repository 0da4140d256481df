"""How much the values of each cell took of the object stores over time: what owners tell of it, as curves.

An owner tells a few times a minute, and only what has changed, so that an hour of a busy notebook is some hundred
numbers. Values count for the cell that made them, for as long as anybody holds them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

#: Seconds between two reports of an owner at least.
INTERVAL = 15.0
#: Points kept of each cell, and cells: those that changed last. An owner names as many, and adds up the others.
MAX_POINTS, MAX_CELLS = 240, 50
#: What those are called.
OTHERS = "(others)"


class CellMemoryBook:
    """The curves of a cluster's cells; times are Unix seconds."""

    def __init__(self) -> None:
        #: By owner and cell, what it told last.
        self._told: dict[str, dict[str, int]] = {}
        #: Cells in the order of their last change.
        self._points: dict[str, deque[tuple[float, int]]] = {}

    def report(self, owner_id: str, rows: Iterable[tuple[str, int]], now: float) -> None:
        """An owner tells the bytes of its values, by cell; cells it does not name have none (any more)."""
        before, after = self._told.get(owner_id, {}), dict(rows)
        if after:
            self._told[owner_id] = after
        else:
            self._told.pop(owner_id, None)
        for cell in {**before, **after}:
            if before.get(cell) != after.get(cell):
                self._note(cell, now)

    def owner_left(self, owner_id: str, now: float) -> None:
        """Its values went with it."""
        self.report(owner_id, (), now)

    def rows(self) -> list[dict[str, Any]]:
        """Return for each cell its tag ("" for none) and the points of its curve: times, and bytes from then on."""
        return [
            {"cell": cell, "points": [[round(time, 1), nbytes] for time, nbytes in points]}
            for cell, points in self._points.items()
        ]

    def _note(self, cell: str, now: float) -> None:
        nbytes = sum(told.get(cell, 0) for told in self._told.values())
        points = self._points.pop(cell, None) or deque([(now, 0)], maxlen=MAX_POINTS)
        self._points[cell] = points  # at the end
        points.append((now, nbytes))
        while len(self._points) > MAX_CELLS:
            del self._points[next(iter(self._points))]


__all__ = ["INTERVAL", "MAX_CELLS", "OTHERS", "CellMemoryBook"]

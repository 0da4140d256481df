"""The work of a whole cluster, counted by function and by cell from what its owners report."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any

from shoal.model.cells import cell_name
from shoal.observe.functions import NOTHING, Counts, CountsRow

#: Functions listed at most: the busiest; and those told apart at all: what comes after them is counted together.
MAX_FUNCTIONS, MAX_KNOWN_FUNCTIONS = 100, 10_000
#: Cells listed: those with work that has not ended, and the newest of the others.
MAX_CELLS = 100
#: Functions listed of one cell.
MAX_CELL_FUNCTIONS = 20
#: What the functions that are not told apart are called.
OTHERS = "(others)"


@dataclasses.dataclass(slots=True)
class _Cell:
    #: The driver that it belongs to.
    owner: str
    #: Unix seconds of its first and its last news.
    began: float
    changed: float
    total: Counts = NOTHING
    functions: dict[str, Counts] = dataclasses.field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return self.total.queued > 0 or self.total.running > 0


class WorkCounts:
    """See the module's description. What has ended stays counted when its owner leaves; what had not goes."""

    def __init__(self) -> None:
        self.total = NOTHING
        self._functions: dict[str, Counts] = {}
        self._cells: OrderedDict[str, _Cell] = OrderedDict()
        #: What has not ended, by owner, cell and function.
        self._live: dict[str, dict[tuple[str, str], Counts]] = {}

    def owner_joined(self, owner_id: str) -> None:
        self._live[owner_id] = {}

    def add(self, owner_id: str, driver: str, rows: tuple[CountsRow, ...], now: float) -> None:
        """An owner, which works for the *driver*, tells how its counts have changed."""
        live = self._live[owner_id]
        for row in rows:
            cell, function, change = row[0], row[1], Counts._make(row[2:])
            self._change(cell, function, change, driver, now)
            pending = (
                live.get((cell, function), NOTHING)
                .plus(change)
                ._replace(finished=0, failed=0, cancelled=0, seconds=0.0)
            )
            if pending == NOTHING:
                live.pop((cell, function), None)
            else:
                live[cell, function] = pending
        self._forget_cells()

    def owner_left(self, owner_id: str, now: float) -> None:
        """What an owner had not ended will never end."""
        for (cell, function), pending in self._live.pop(owner_id).items():
            self._change(cell, function, NOTHING.minus(pending), "", now)

    def queued_by(self, owner_id: str) -> int:
        """Return how much of an owner's work has not been sent to an executor."""
        return sum(pending.queued for pending in self._live.get(owner_id, {}).values())

    def function_rows(self) -> list[dict[str, Any]]:
        """Return the busiest functions, those with work that runs first."""
        busiest = sorted(self._functions.items(), key=lambda item: (-item[1].running, -item[1].seconds))
        return [{"name": name, **_as_row(counts)} for name, counts in busiest[:MAX_FUNCTIONS]]

    def cell_rows(self) -> list[dict[str, Any]]:
        """Return the cells, the newest last, each with its busiest functions."""
        rows = []
        for tag, cell in self._cells.items():
            busiest = sorted(cell.functions.items(), key=lambda item: (-item[1].running, -item[1].seconds))
            rows.append(
                {
                    "id": tag,
                    "name": cell_name(tag),
                    "owner": cell.owner,
                    "began": round(cell.began, 3),
                    "changed": round(cell.changed, 3),
                    **_as_row(cell.total),
                    "functions": [{"name": name, **_as_row(counts)} for name, counts in busiest[:MAX_CELL_FUNCTIONS]],
                }
            )
        return rows

    def _change(self, tag: str, function: str, change: Counts, driver: str, now: float) -> None:
        self.total = self.total.plus(change)
        if function not in self._functions and len(self._functions) >= MAX_KNOWN_FUNCTIONS:
            function = OTHERS
        self._functions[function] = self._functions.get(function, NOTHING).plus(change)
        if not tag:
            return
        cell = self._cells.get(tag)
        if cell is None:
            if not driver:  # forgotten, and its owner has left
                return
            cell = self._cells[tag] = _Cell(driver, now, now)
        cell.changed = now
        cell.total = cell.total.plus(change)
        cell.functions[function] = cell.functions.get(function, NOTHING).plus(change)

    def _forget_cells(self) -> None:
        excess = len(self._cells) - MAX_CELLS
        if excess > 0:
            for tag in [tag for tag, cell in self._cells.items() if not cell.is_live][:excess]:
                del self._cells[tag]


def _as_row(counts: Counts) -> dict[str, Any]:
    return {**counts._asdict(), "seconds": round(counts.seconds, 6)}

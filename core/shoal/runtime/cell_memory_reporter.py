"""Tells the controller how much the values of each cell take of the object stores, a few times a minute at most."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from shoal.machines.objects import Entry
from shoal.model import messages as m
from shoal.observe.cell_memory import INTERVAL, MAX_CELLS, OTHERS
from shoal.runtime import payload as payloads
from shoal.runtime.lineage import origin_of
from shoal.runtime.store import segment_nbytes

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner

#: Objects looked at: the newest. It takes a fifth of a second, in a thread.
MAX_ENTRIES = 200_000
#: Seconds from a change to the report of it, where the last is long ago: what goes together is told together.
SETTLE = 1.0


class CellMemoryReporter:
    """See the module's description. Lives on the owner's event loop."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._looked = -INTERVAL
        self._told: tuple[tuple[str, int], ...] = ()
        #: Whether a report is on its way that will tell of any change until now; on any thread.
        self.is_due = False

    def touch(self) -> None:
        """There may be more or less of values."""
        if not self.is_due and self._owner.controller.connected and not self._owner.closing:
            self.is_due = True
            wait = max(SETTLE, self._looked + INTERVAL - time.monotonic())
            self._owner.loop.call_later(wait, lambda: self._owner.start_soon(self._report()))

    async def _report(self) -> None:
        self._looked = time.monotonic()
        self.is_due = False  # what changes from here on is for the next
        rows = await asyncio.to_thread(lambda: add_up(self._owner.table.entries()))
        if rows != self._told and not self._owner.closing:
            self._told = rows
            self._owner.controller.tell(m.CellMemory(rows))


def add_up(entries: list[Entry]) -> tuple[tuple[str, int], ...]:
    """Return the cells whose values we own, by tag ("" for none), and their bytes; those with most first."""
    sums: Counter[str] = Counter()
    for entry in islice(reversed(entries), MAX_ENTRIES):
        payload = entry.payload
        if not entry.owner and payload is not None and payload[0] == payloads.SEGMENT:
            sums[origin_of(entry.lineage)[1] or ""] += segment_nbytes(payload[3])
    rows = sums.most_common()
    others = sum(nbytes for _, nbytes in rows[MAX_CELLS - 1 :])
    return (*rows[: MAX_CELLS - 1], *([(OTHERS, others)] if others else []))


__all__ = ["CellMemoryReporter", "add_up"]

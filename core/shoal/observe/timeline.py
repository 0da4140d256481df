"""When the work of a cell was done: each piece of it while there are few, and sums over slices of time always.

The slices are as wide as it takes for :data:`NUM_SLICES` of them to reach from the first submission to now, so that a
cell of a second and one of a day need the same memory, and a million tasks no more than ten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

Number = TypeVar("Number", int, float)

#: How work can end.
FINISHED, FAILED, CANCELLED = range(3)
#: Slices of a timeline, and seconds that each is wide at first.
NUM_SLICES, FIRST_WIDTH = 120, 0.05
#: Seconds below which work is counted where it ends, without a look at where it began.
QUICK = 0.01
#: Pieces of work remembered one by one, and executors.
MAX_SPANS, MAX_LANES = 300, 1_000


class Span(NamedTuple):
    """One piece of work in an executor; ``lane`` numbers these, and times are seconds since the cell's first work."""

    lane: int
    start: float
    end: float
    name: str
    outcome: int


class Slice(NamedTuple):
    """What was done in one slice of time."""

    #: Seconds of work.
    busy: float
    #: How much ended in it, and how much of that without a result.
    ended: int
    unsuccessful: int


class Timeline:
    """See the module's description. Written on one thread; others may read while it grows."""

    __slots__ = (
        "_busy",
        "_ended",
        "_unsuccessful",
        "clock",
        "lanes",
        "last_end",
        "origin",
        "quick_ended",
        "quick_seconds",
        "quick_until",
        "spans",
        "width",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin a timeline now; *clock* returns the time in seconds."""
        self.clock = clock
        #: When the cell's first work was submitted, and when some last ended.
        self.origin = self.last_end = clock()
        #: Seconds that a slice is wide.
        self.width = FIRST_WIDTH
        #: Of each slice: seconds of work done in it, how much ended in it, and how much of that without a result.
        self._busy = [0.0] * NUM_SLICES
        self._ended = [0] * NUM_SLICES
        self._unsuccessful = [0] * NUM_SLICES
        #: The first pieces of work that ended.
        self.spans: list[Span] = []
        #: Executors, in the order of their first answers that were looked at.
        self.lanes: dict[str, int] = {}
        #: Short work that has finished since the last :meth:`add`, which need not be called for it before this time.
        self.quick_until = self.origin
        self.quick_ended = 0
        self.quick_seconds = 0.0

    def slices(self) -> list[Slice]:
        """Return the slices from the first to that of the last end."""
        busy, ended, unsuccessful = list(self._busy), list(self._ended), list(self._unsuccessful)
        last = self._number(self.last_end - self.origin)
        busy[last] += self.quick_seconds
        ended[last] += self.quick_ended
        return [Slice(*row) for row in zip(busy[: last + 1], ended, unsuccessful, strict=False)]

    def add(self, name: str, executor: str, seconds: float, now: float, outcome: int) -> None:
        """Work that took *seconds* has just ended in *executor*; "" if it had not begun there."""
        self._settle()
        self.last_end = now
        end = now - self.origin
        if end >= NUM_SLICES * self.width:
            self._widen(end)
        last = self._number(end)
        self._ended[last] += 1
        self._unsuccessful[last] += outcome != FINISHED
        if executor:
            self._spend(max(0.0, end - seconds), end, last)
            lane = self.lanes.get(executor, -1)
            if lane < 0 and len(self.lanes) < MAX_LANES:
                lane = self.lanes[executor] = len(self.lanes)
            if len(self.spans) < MAX_SPANS:
                self.spans.append(Span(lane, max(0.0, end - seconds), end, name, outcome))
        if len(self.spans) == MAX_SPANS:
            self.quick_until = self.origin + (last + 1) * self.width

    def _settle(self) -> None:
        """Put the short work of the slice that was the last into it."""
        if self.quick_ended:
            last = self._number(self.last_end - self.origin)
            self._busy[last] += self.quick_seconds
            self._ended[last] += self.quick_ended
            self.quick_ended, self.quick_seconds = 0, 0.0

    def _number(self, time: float) -> int:
        return min(int(time / self.width), NUM_SLICES - 1)

    def _spend(self, start: float, end: float, last: int) -> None:
        """Count the time from *start* to *end*, which is in the slice *last*, as work."""
        width, busy = self.width, self._busy
        first = int(start / width)
        if first == last:
            busy[last] += end - start
            return
        busy[first] += (first + 1) * width - start
        for number in range(first + 1, last):
            busy[number] += width
        busy[last] += end - last * width

    def _widen(self, end: float) -> None:
        """Make two slices one until *end* is within the last."""
        while end >= NUM_SLICES * self.width:
            self.width *= 2
            self._busy = _pairwise(self._busy)
            self._ended = _pairwise(self._ended)
            self._unsuccessful = _pairwise(self._unsuccessful)


def _pairwise(values: list[Number]) -> list[Number]:
    half = len(values) // 2
    return [values[2 * number] + values[2 * number + 1] for number in range(half)] + [values[0] - values[0]] * half

"""How far the work of each notebook cell is.

A :class:`CellBook` counts what the tasks and calls of each cell come to, by function; :meth:`CellWork.look` makes a
:class:`Progress` of one cell for who wants to show it. Clocks are passed in.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Callable

from shoal.model.messages import Payload
from shoal.observe.functions import Tally
from shoal.observe.timeline import Timeline

#: Cells remembered: the newest.
MAX_CELLS = 100
#: Functions told apart in one cell; what comes after them is counted together.
MAX_FUNCTIONS = 50
#: What these are called.
OTHERS = "(others)"
#: Errors kept of one cell, and bytes of each at most.
MAX_FAILURES, MAX_FAILURE_NBYTES = 5, 100_000
#: Standard deviations that an estimate reaches to either side.
SPREAD = 2.0


class CellWork:
    """The tasks and calls of one cell. Written on the owner's loop; :meth:`look` may be called on any thread."""

    def __init__(self, tag: str, clock: Callable[[], float], on_news: Callable[[Tally], None] | None) -> None:
        self.tag = tag
        self.timeline = Timeline(clock)
        self.tallies: dict[str, Tally] = {}
        #: Somebody knows that it has work, and looks at it until it has none.
        self.watched = False
        #: The first errors: the function's name and the payload.
        self.failures: list[tuple[str, Payload]] = []
        self._on_news = on_news

    def tally(self, name: str) -> Tally:
        """Return what counts the work of a function."""
        tally = self.tallies.get(name)
        if tally is None:
            if len(self.tallies) >= MAX_FUNCTIONS:
                return self.tallies.setdefault(OTHERS, Tally(OTHERS, self.timeline, self._on_news, self.tag))
            tally = self.tallies[name] = Tally(name, self.timeline, self._on_news, self.tag)
        return tally

    @property
    def wants_failures(self) -> bool:
        """Whether there is room for one more."""
        return len(self.failures) < MAX_FAILURES

    def note_failure(self, name: str, error: Payload) -> None:
        """Remember one of the first errors."""
        if len(self.failures) < MAX_FAILURES and sum(map(len, error[1:])) <= MAX_FAILURE_NBYTES:
            self.failures.append((name, error))

    def look(self) -> Progress:
        """Return how far it is."""
        functions = tuple(
            FunctionProgress(
                t.name, t.submitted, t.running, t.finished, t.failed, t.cancelled, t.retries, t.seconds, t.squares,
                t.longest,
            )
            for t in list(self.tallies.values())
        )  # fmt: skip
        pending = any(row.num_pending for row in functions)
        end = self.timeline.clock() if pending else self.timeline.last_end
        return Progress(self.tag, functions, max(0.0, end - self.timeline.origin), max(1, len(self.timeline.lanes)))


@dataclasses.dataclass(frozen=True, slots=True)
class FunctionProgress:
    """The work of one function in one cell: how often it was submitted and what came of that.

    Attributes
    ----------
    running
        Sent to an executor and not answered; short tasks are sent some milliseconds ahead.
    retries
        How often one was sent again after it may have begun.
    seconds, squares, longest
        Of those that ended, in user code: the sum, the sum of the squares, the most.
    """

    name: str
    submitted: int
    running: int
    finished: int
    failed: int
    cancelled: int
    retries: int
    seconds: float
    squares: float
    longest: float

    @property
    def num_ended(self) -> int:
        return self.finished + self.failed + self.cancelled

    @property
    def num_pending(self) -> int:
        return max(0, self.submitted - self.num_ended)

    def left(self) -> tuple[float, float] | None:
        """Return the seconds of work that are left, from and to; None while none of it has finished."""
        pending, known = self.num_pending, self.finished + self.failed
        if not pending:
            return 0.0, 0.0
        if not known:
            return None
        mean = self.seconds / known
        variance = max(0.0, self.squares / known - mean * mean)
        # Of a sum of as many, and of the mean itself, which is known from as many.
        error = SPREAD * math.sqrt(variance * (pending + pending * pending / known))
        begun = min(self.running, pending) / 2  # what runs is half done, on average
        return max(0.0, (pending - begun) * mean - error), pending * mean + error


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far the work of one cell is.

    Attributes
    ----------
    cell
        The cell's tag.
    functions
        One entry for each function whose work the cell has submitted.
    elapsed
        Seconds from the first submission to now, or to the last end if nothing is pending.
    num_lanes
        Executors that have answered; where work is short, not every answer is looked at.
    """

    cell: str
    functions: tuple[FunctionProgress, ...]
    elapsed: float
    num_lanes: int

    @property
    def submitted(self) -> int:
        return sum(row.submitted for row in self.functions)

    @property
    def running(self) -> int:
        return sum(row.running for row in self.functions)

    @property
    def finished(self) -> int:
        return sum(row.finished for row in self.functions)

    @property
    def failed(self) -> int:
        return sum(row.failed for row in self.functions)

    @property
    def cancelled(self) -> int:
        return sum(row.cancelled for row in self.functions)

    @property
    def retries(self) -> int:
        return sum(row.retries for row in self.functions)

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.functions)

    @property
    def num_ended(self) -> int:
        return self.finished + self.failed + self.cancelled

    @property
    def pending(self) -> int:
        return max(0, self.submitted - self.num_ended)

    def left(self) -> tuple[float, float] | None:
        """Return in how many seconds everything will have ended, from and to.

        From what each function has taken so far and what is left of it, and from how much was done at a time: at best
        as much as there are executors, at worst as much as there was on average. None while a function has not
        finished once. What is submitted later is not in it.
        """
        low = high = 0.0
        for row in self.functions:
            left = row.left()
            if left is None:
                return None
            low, high = low + left[0], high + left[1]
        worst = self.seconds / self.elapsed if self.elapsed > 0 else 1.0
        worst = min(max(1.0, worst), float(self.num_lanes), max(1.0, float(self.pending)))
        return low / min(self.num_lanes, max(1, self.pending)), high / worst


class CellBook:
    """The newest cells of an owner that have submitted work, and tallies of all its work.

    Parameters
    ----------
    clock
        Returns the time in seconds.
    on_news
        Gets each tally when it has changed, as :class:`Tally` says; None if nobody adds them up.
    on_work
        Gets a cell when it has work and nobody watches it. It must be quick.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        on_news: Callable[[Tally], None] | None,
        on_work: Callable[[CellWork], None],
    ) -> None:
        self._clock = clock
        self._on_news = on_news
        self._on_work = on_work
        self._cells: OrderedDict[str, CellWork] = OrderedDict()
        #: Tallies of work that belongs to no cell.
        self._tallies: dict[str, Tally] = {}

    def submit(self, tag: str | None, name: str) -> Tally:
        """Count a submission of the function *name* in a cell; returns what counts its further way."""
        if tag is None:
            tally = self._tallies.get(name)
            if tally is None:
                tally = self._tallies[name] = Tally(name, None, self._on_news)
            tally.submit()
            return tally
        cell = self._cells.get(tag)
        if cell is None:
            cell = self._begin(tag)
        tally = cell.tallies.get(name) or cell.tally(name)
        tally.submit()
        if not cell.watched:
            self._on_work(cell)
        return tally

    def find(self, tag: str) -> CellWork | None:
        """Return the cell with this tag, if it has submitted work and is not forgotten."""
        return self._cells.get(tag)

    def cells(self) -> list[CellWork]:
        """Return the cells that are remembered, the newest last."""
        return list(self._cells.values())

    def tallies(self) -> list[Tally]:
        """Return the tallies of the cells that are remembered, and of work that belongs to no cell."""
        cells = [tally for cell in self.cells() for tally in list(cell.tallies.values())]
        return [*cells, *list(self._tallies.values())]

    def _begin(self, tag: str) -> CellWork:
        cell = self._cells[tag] = CellWork(tag, self._clock, self._on_news)
        while len(self._cells) > MAX_CELLS:
            self._cells.popitem(last=False)
        return cell

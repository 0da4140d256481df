"""Counts of work by cell and function: what an owner reports, and what the controller adds up."""

from __future__ import annotations

from collections.abc import Callable
from operator import add, sub
from typing import NamedTuple

from shoal.observe.durations import Durations
from shoal.observe.timeline import CANCELLED, FAILED, FINISHED, QUICK, Timeline

#: Tallies that wait to be added up at most: they are those of cells that may be long gone.
MAX_NEWS = 1_000


class Counts(NamedTuple):
    """Work of one kind, counted, or how that has changed.

    ``queued`` has not been sent to an executor, ``running`` has and was not answered; the others have ended, after
    ``seconds`` in user code.
    """

    queued: int = 0
    running: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    seconds: float = 0.0

    @property
    def num_ended(self) -> int:
        return self.finished + self.failed + self.cancelled

    def plus(self, other: Counts) -> Counts:
        return Counts(*map(add, self, other))

    def minus(self, other: Counts) -> Counts:
        return Counts(*map(sub, self, other))


NOTHING = Counts()
#: What an owner reports: a cell's tag ("" for none), a function's name, and :class:`Counts`.
CountsRow = tuple[str, str, int, int, int, int, int, float]


class Tally:
    """The work of one function in one cell, counted. Cheap enough for every task: its methods are three of each."""

    __slots__ = (
        "_on_news",
        "_reported",
        "_reported_durations",
        "_timeline",
        "cancelled",
        "cell",
        "changed",
        "durations",
        "failed",
        "finished",
        "longest",
        "name",
        "retries",
        "running",
        "seconds",
        "squares",
        "submitted",
    )

    def __init__(
        self, name: str, timeline: Timeline | None, on_news: Callable[[Tally], None] | None, cell: str = ""
    ) -> None:
        """``on_news(self)`` is called with a change, once until :meth:`take_changes`; *timeline* is the cell's."""
        self.name = name
        self.cell = cell
        self._timeline = timeline
        self._on_news = on_news
        #: Whether it has told so.
        self.changed = on_news is None
        self._reported = NOTHING
        self._reported_durations = Durations()
        self.submitted = 0
        #: Sent to an executor and not answered.
        self.running = 0
        self.finished = 0
        self.failed = 0
        self.cancelled = 0
        #: How often something was sent once more after it may have begun.
        self.retries = 0
        #: In user code: their sum, the sum of their squares, and the most.
        self.seconds = 0.0
        self.squares = 0.0
        self.longest = 0.0
        #: How many took about so long.
        self.durations = Durations()

    @property
    def num_ended(self) -> int:
        return self.finished + self.failed + self.cancelled

    def submit(self) -> None:
        self.submitted += 1
        if not self.changed:
            self.tell()

    def send(self) -> None:
        self.running += 1
        if not self.changed:
            self.tell()

    def take_back(self) -> None:
        """It came back without having begun."""
        self.running -= 1
        if not self.changed:
            self.tell()

    def finish(self, begun: bool, seconds: float, executor: str) -> None:
        """Work has ended with a result, after *seconds* in *executor*."""
        if begun:
            self.running -= 1
        self.finished += 1
        self._spend(seconds, executor, FINISHED)

    def fail(self, begun: bool, seconds: float, executor: str, outcome: int = FAILED) -> None:
        """Work has ended without a result: it has failed, or was cancelled."""
        if begun:
            self.running -= 1
        if outcome == CANCELLED:
            self.cancelled += 1
        else:
            self.failed += 1
        self._spend(seconds, executor, outcome)

    def _spend(self, seconds: float, executor: str, outcome: int) -> None:
        self.seconds += seconds
        self.squares += seconds * seconds
        if seconds > self.longest:
            self.longest = seconds
        if executor:
            self.durations.add(seconds)
        timeline = self._timeline
        if timeline is not None:
            now = timeline.clock()
            if outcome == FINISHED and now < timeline.quick_until and seconds < QUICK:
                timeline.quick_ended += 1
                timeline.quick_seconds += seconds
                timeline.last_end = now
            else:
                timeline.add(self.name, executor, seconds, now, outcome)
        if not self.changed:
            self.tell()

    def take_changes(self) -> Counts:
        """Return how much more is queued, running, … than last time."""
        queued = self.submitted - self.running - self.num_ended
        counts = Counts(queued, self.running, self.finished, self.failed, self.cancelled, self.seconds)
        before, self._reported = self._reported, counts
        self.changed = self._on_news is None
        return counts.minus(before)

    def move_durations(self, into: Durations) -> None:
        """Add the durations that have been counted since last time to *into*."""
        into.merge_news(self.durations, self._reported_durations)

    def tell(self) -> None:
        self.changed = True
        assert self._on_news is not None
        self._on_news(self)


class FunctionStats:
    """What has changed in an owner's tallies since it was last reported, by cell and function."""

    def __init__(self) -> None:
        #: Tallies to add up, and the sums of those that were.
        self._news: list[Tally] = []
        self._changes: dict[tuple[str, str], Counts] = {}
        #: By function: what its work took, and the sum of that in seconds.
        self._durations: dict[str, tuple[Durations, float]] = {}

    @property
    def changed(self) -> bool:
        return bool(self._news or self._changes)

    def note(self, tally: Tally) -> None:
        """A tally has changed since it was added up."""
        self._news.append(tally)
        if len(self._news) >= MAX_NEWS:
            self._add_up()

    def take_changes(self) -> tuple[CountsRow, ...]:
        """Return what came to pass since last time: ``(cell, function, *counts)``, the cell's tag or ""."""
        self._add_up()
        changes, self._changes = self._changes, {}
        return tuple((cell, name, *counts) for (cell, name), counts in changes.items())

    def take_durations(self) -> dict[str, tuple[Durations, float]]:
        """Return what ended since last time, how long it took: by function, with the sum in seconds."""
        self._add_up()
        durations, self._durations = self._durations, {}
        return durations

    def _add_up(self) -> None:
        tallies, self._news = self._news, []
        for tally in tallies:
            key = (tally.cell, tally.name)
            change = tally.take_changes()
            before = self._changes.get(key)
            self._changes[key] = change if before is None else before.plus(change)
            if change.num_ended:
                durations, seconds = self._durations.get(tally.name) or (Durations(), 0.0)
                tally.move_durations(durations)
                self._durations[tally.name] = (durations, seconds + change.seconds)


__all__ = ["CANCELLED", "FAILED", "FINISHED", "NOTHING", "Counts", "CountsRow", "FunctionStats", "Tally"]

"""Counts per function: what an owner reports, and what the controller adds up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from shoal.observe.durations import Durations
from shoal.observe.timeline import CANCELLED, FAILED, FINISHED, QUICK, Timeline

#: Tallies that wait to be added up at most: they are those of cells that may be long gone.
MAX_NEWS = 1_000


class Tally:
    """The work of one function in one cell, counted. Cheap enough for every task: its methods are three of each."""

    __slots__ = (
        "_on_news",
        "_reported",
        "_timeline",
        "cancelled",
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

    def __init__(self, name: str, timeline: Timeline | None, on_news: Callable[[Tally], None] | None) -> None:
        """``on_news(self)`` is called with a change, once until :meth:`take_changes`; *timeline* is the cell's."""
        self.name = name
        self._timeline = timeline
        self._on_news = on_news
        #: Whether it has told so.
        self.changed = on_news is None
        self._reported = (0, 0, 0, 0, 0.0)
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

    def take_changes(self) -> tuple[int, int, int, int, float]:
        """Return how much more is queued, running, finished, failed, and how many seconds, than last time."""
        queued = self.submitted - self.running - self.num_ended
        counts = (queued, self.running, self.finished, self.failed + self.cancelled, self.seconds)
        before, self._reported = self._reported, counts
        self.changed = self._on_news is None
        return (
            counts[0] - before[0],
            counts[1] - before[1],
            counts[2] - before[2],
            counts[3] - before[3],
            counts[4] - before[4],
        )

    def tell(self) -> None:
        self.changed = True
        assert self._on_news is not None
        self._on_news(self)


@dataclasses.dataclass(slots=True)
class Counts:
    """Work under one name. ``running`` is what has been sent to an executor, ``seconds`` is time in user code."""

    running: int = 0
    finished: int = 0
    failed: int = 0
    seconds: float = 0.0


class FunctionStats:
    """An owner's counts: its tallies, added up by function."""

    def __init__(self) -> None:
        self._functions: dict[str, Counts] = {}
        #: Tallies to add up, and functions that have changed by those that were.
        self._news: list[Tally] = []
        self._changed: dict[str, None] = {}
        self._queued = 0

    @property
    def changed(self) -> bool:
        return bool(self._news or self._changed)

    def note(self, tally: Tally) -> None:
        """A tally has changed since it was added up."""
        self._news.append(tally)
        if len(self._news) >= MAX_NEWS:
            self._add_up()

    def take_changes(self) -> tuple[int, tuple[tuple[str, int, int, int, float], ...]]:
        """Return how much is queued in all, and the absolute counts of each function that changed since last time.

        What was cancelled counts as failed.
        """
        self._add_up()
        names, self._changed = self._changed, {}
        counts = ((name, self._functions[name]) for name in names)
        return self._queued, tuple((name, c.running, c.finished, c.failed, c.seconds) for name, c in counts)

    def _add_up(self) -> None:
        tallies, self._news = self._news, []
        for tally in tallies:
            self._changed[tally.name] = None
            queued, running, finished, failed, seconds = tally.take_changes()
            counts = self._functions.setdefault(tally.name, Counts())
            self._queued += queued
            counts.running += running
            counts.finished += finished
            counts.failed += failed
            counts.seconds += seconds


__all__ = ["CANCELLED", "FAILED", "FINISHED", "FunctionStats", "Tally"]

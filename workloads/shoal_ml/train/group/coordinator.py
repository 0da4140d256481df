"""The actor in which the ranks of a group meet, and from which the driver hears of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from shoal.api.ranks import Meeting
from shoal_ml.train.errors import ReportError
from shoal_ml.train.group.reports import RankReport, ReportBook, Saved


class Orders(NamedTuple):
    """What a rank is told in answer to its report; all ranks are told the same."""

    stop: bool = False
    settings: dict[str, Any] = {}  # noqa: RUF012
    #: What went wrong with a checkpoint.
    error: Exception | None = None


class Coordinator(Meeting):
    """Holds a report until those of all ranks are there, and one with a checkpoint until the driver has stored it."""

    def __init__(self, num_ranks: int, start: int, settings: dict[str, Any]) -> None:
        super().__init__()
        self._book = ReportBook(num_ranks, start)
        self._answers: dict[int, Orders] = {}
        self._problem: ReportError | None = None
        self._orders = Orders(settings=settings)
        self._events: list[tuple[str, Any]] = []
        self._changed = asyncio.Condition()

    async def report(self, report: RankReport) -> Orders:
        """Take the report of a rank; returns when it is free to go on."""
        number = report.number
        async with self._changed:
            self._try(lambda: self._add(report))
            self._collect_saved()
            self._changed.notify_all()
            await self._changed.wait_for(lambda: number in self._answers or self._problem is not None)
            if number not in self._answers:
                assert self._problem is not None
                raise self._problem
            return self._answers[number]

    async def saved(self, rank: int, number: int, saved: Saved) -> None:
        """Take the part of a checkpoint that was written after its report."""
        async with self._changed:
            self._book.add_saved(rank, number, saved)
            self._collect_saved()
            self._changed.notify_all()

    async def end(self, rank: int) -> None:
        """The loop of a rank has ended; returns when those of all have, or one cannot."""
        async with self._changed:
            self._try(lambda: self._book.end(rank))
            self._events.append(("ended", rank))
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._book.all_ended or self._problem is not None)

    async def news(self, seen: int) -> list[tuple[str, Any]]:
        """Return the events after the first *seen*, as soon as there are any: for the driver."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._events) > seen)
            return self._events[seen:]

    async def backlog(self, seen: int) -> list[tuple[str, Any]]:
        """Return the events after the first *seen*, at once."""
        async with self._changed:
            return self._events[seen:]

    async def release(self, number: int, error: Exception | None) -> None:
        """The checkpoint of a report is stored, or could not be: its ranks may go on."""
        async with self._changed:
            self._answers[number] = self._orders._replace(error=error)
            self._changed.notify_all()

    async def order(self, stop: bool, settings: dict[str, Any]) -> None:
        """Have the next report answered by this."""
        async with self._changed:
            self._orders = Orders(stop, settings)

    def _add(self, report: RankReport) -> None:
        done = self._book.add(report, time.monotonic())
        if done is None:
            return
        self._answers.pop(done.number - 2, None)
        self._events.append(("round", done))
        if not any(one.saved is not None for one in done.reports):
            self._answers[done.number] = self._orders

    def _collect_saved(self) -> None:
        self._events.extend(("saved", found) for found in self._book.take_saved())

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except ReportError as error:
            self._problem = error

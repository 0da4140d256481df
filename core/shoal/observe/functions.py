"""Counts per function: what an owner reports, and what the controller adds up."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class Counts:
    """Work under one name. ``running`` is what has been sent to an executor, ``seconds`` is time in user code."""

    queued: int = 0
    running: int = 0
    finished: int = 0
    failed: int = 0
    seconds: float = 0.0


class FunctionStats:
    """An owner's counts, cheap enough for every task."""

    def __init__(self) -> None:
        self._functions: dict[str, Counts] = {}
        self._changed: set[str] = set()
        self._queued = 0

    @property
    def changed(self) -> bool:
        return bool(self._changed)

    def queued(self, name: str) -> None:
        self._of(name).queued += 1
        self._queued += 1

    def started(self, name: str) -> None:
        counts = self._of(name)
        counts.queued -= 1
        counts.running += 1
        self._queued -= 1

    def unstarted(self, name: str) -> None:
        """It came back without having begun."""
        counts = self._of(name)
        counts.queued += 1
        counts.running -= 1
        self._queued += 1

    def ended(self, name: str, *, begun: bool, failed: bool, seconds: float) -> None:
        counts = self._of(name)
        if begun:
            counts.running -= 1
        else:
            counts.queued -= 1
            self._queued -= 1
        if failed:
            counts.failed += 1
        else:
            counts.finished += 1
        counts.seconds += seconds

    def take_changes(self) -> tuple[int, tuple[tuple[str, int, int, int, float], ...]]:
        """Return how much is queued in all, and the absolute counts of each function that changed since last time."""
        rows = []
        for name in self._changed:
            c = self._functions[name]
            rows.append((name, c.running, c.finished, c.failed, c.seconds))
        self._changed.clear()
        return self._queued, tuple(rows)

    def _of(self, name: str) -> Counts:
        self._changed.add(name)
        counts = self._functions.get(name)
        if counts is None:
            counts = self._functions[name] = Counts()
        return counts

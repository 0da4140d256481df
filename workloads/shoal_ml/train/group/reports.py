"""What the ranks of one group have reported; no loop, no clock: times are passed in."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from shoal_ml.train.checkpoints import FileEntry
from shoal_ml.train.errors import ReportError


class Saved(NamedTuple):
    """The part of a checkpoint that one rank has written."""

    files: dict[str, FileEntry]
    #: Ref of the files' content by name, where the rank cannot write into the run's directory.
    content: Any = None


class RankReport(NamedTuple):
    """One call of ``report`` by one rank."""

    rank: int
    number: int
    metrics: dict[str, Any]
    #: See :class:`shoal_ml.train.group.meter.Lap`.
    lap: dict[str, float]
    has_checkpoint: bool = False
    #: None if it is still being written.
    saved: Saved | None = None


@dataclasses.dataclass
class Round:
    """The reports of all ranks that have one number, in the order of the ranks."""

    number: int
    reports: list[RankReport]
    #: Seconds that each rank came after the first.
    late: list[float]

    @property
    def has_checkpoint(self) -> bool:
        return any(report.has_checkpoint for report in self.reports)

    @property
    def savers(self) -> set[int]:
        """The ranks that have a part of the checkpoint."""
        return {report.rank for report in self.reports if report.has_checkpoint}


class ReportBook:
    """Puts the reports of all ranks together, round by round.

    Parameters
    ----------
    num_ranks
        Ranks of the group.
    start
        Number of the last report before this group began.
    """

    def __init__(self, num_ranks: int, start: int = 0) -> None:
        self._num_ranks = num_ranks
        self._counts = [start] * num_ranks
        self._ended: set[int] = set()
        #: Of the round that is not complete: reports and when they came, by rank.
        self._open: dict[int, tuple[RankReport, float]] = {}
        #: Rounds with a checkpoint that is not complete.
        self._unsaved: dict[int, Round] = {}
        self._saved: dict[int, dict[int, Saved]] = {}

    def add(self, report: RankReport, now: float) -> Round | None:
        """Take a report; returns the round that it completes.

        Raises
        ------
        ReportError
            It can never be complete, because a rank has ended.
        """
        self._counts[report.rank] = report.number
        self._open[report.rank] = report, now
        if report.saved is not None:
            self._saved.setdefault(report.number, {})[report.rank] = report.saved
        self.check()
        if len(self._open) < self._num_ranks:
            return None
        first = min(moment for _, moment in self._open.values())
        ranks = range(self._num_ranks)
        done = Round(
            report.number, [self._open[rank][0] for rank in ranks], [self._open[rank][1] - first for rank in ranks]
        )
        self._open.clear()
        if done.has_checkpoint:
            self._unsaved[done.number] = done
        return done

    def add_saved(self, rank: int, number: int, saved: Saved) -> None:
        """Take the part of a checkpoint that a rank has written after its report."""
        self._saved.setdefault(number, {})[rank] = saved

    def take_saved(self) -> list[tuple[Round, dict[int, Saved]]]:
        """Return the checkpoints of which all parts are there, each once."""
        ready = [done for number, done in self._unsaved.items() if done.savers <= set(self._saved.get(number, ()))]
        return [(self._unsaved.pop(done.number), self._saved.pop(done.number)) for done in ready]

    def end(self, rank: int) -> None:
        """The loop of a rank has ended."""
        self._ended.add(rank)
        self.check()

    @property
    def all_ended(self) -> bool:
        return len(self._ended) == self._num_ranks

    def check(self) -> None:
        """Refuse to wait for a rank that will not come."""
        missing = sorted(self._ended & (set(range(self._num_ranks)) - set(self._open)))
        if not self._open or not missing:
            return
        waiting = ", ".join(str(rank) for rank in sorted(self._open))
        number = next(report.number for report, _ in self._open.values())
        raise ReportError(
            f"Rank {waiting} waits in report {number}, but the loop of rank {missing[0]} has ended after "
            f"{self._counts[missing[0]]}. Every rank calls `report` equally often: is it called on one rank only, or "
            "is a data shard shorter than the others?",
            reports=tuple(self._counts),
        )

"""The task grid: what each executor did in each second of the last minute, reduced from the records of its work.

A record covers the time from its start to its end. In each slice of time an executor shows the function that took
most of it, and how much of it was spent in user code in all. Work is recorded when it has ended; what still runs is
given beside the records, and drawn up to now.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shoal.observe.records import Columns

#: Slices shown, seconds of each, and executors shown at most: the busiest.
NUM_SLICES, STEP, MAX_EXECUTORS = 60, 1.0, 64
#: Executors remembered at most.
MAX_KNOWN = 4_096

Slices = dict[int, dict[str, float]]


class Running(NamedTuple):
    """A piece of work that has not ended; it began at a time of the cluster, in Unix seconds."""

    executor: str
    function: str
    began: float


class Grid:
    """See the module's description. Times are Unix seconds of the cluster; not for several threads at once."""

    def __init__(self, num_slices: int = NUM_SLICES, step: float = STEP) -> None:
        self._num_slices = num_slices
        self._step = step
        #: Of each executor: seconds by number of the slice and function.
        self._executors: dict[str, Slices] = {}
        #: Number of the newest slice that anything is known of.
        self._newest = 0

    @property
    def executors(self) -> set[str]:
        return set(self._executors)

    def add(self, columns: Columns) -> None:
        """Take in a batch of records (:func:`shoal.observe.records.unpack`)."""
        step, rows = self._step, zip(columns.executors, columns.functions, columns.ended, columns.seconds, strict=True)
        for executor, function, ended, seconds in rows:
            if not executor or not seconds > 0 or not math.isfinite(ended):
                continue
            last = int(ended / step)
            if last > self._newest:
                self._newest = last
            slices = self._executors.get(executor)
            if slices is None:
                slices = self._executors[executor] = {}
            started = ended - seconds
            if started >= last * step:  # the many that are short
                busy = slices.setdefault(last, {})
                busy[function] = busy.get(function, 0.0) + seconds
            else:
                self._spread(slices, function, started, ended, last)
        self._forget()

    def rows(self, now: float, node_of: Mapping[str, str], running: Iterable[Running] = ()) -> list[dict[str, Any]]:
        """Return the busiest executors with their slices, the oldest first; they end with the second before *now*.

        Parameters
        ----------
        now
            Cluster's time; what is older than the grid reaches is forgotten.
        node_of
            The node of each executor.
        running
            What has begun and not ended.
        """
        self._newest = max(self._newest, int(now / self._step))
        self._forget()
        first = self._newest - self._num_slices + 1
        executors = dict(self._executors)
        for work in running:
            slices = {number: dict(busy) for number, busy in executors.get(work.executor, {}).items()}
            self._spread(slices, work.function, work.began, now, int(now / self._step))
            executors[work.executor] = slices
        busiest = sorted(executors, key=lambda name: (-_sum(executors[name].values()), name))
        shown = sorted(busiest[:MAX_EXECUTORS], key=lambda name: (node_of.get(name, ""), name))
        return [
            {
                "id": name,
                "node": node_of.get(name, ""),
                "slices": [self._cell(executors[name].get(number)) for number in range(first, self._newest + 1)],
            }
            for name in shown
        ]

    def _cell(self, busy: dict[str, float] | None) -> list[Any]:
        if not busy:
            return [None, 0.0]
        most = max(busy, key=lambda function: busy[function])
        return [most, round(min(1.0, sum(busy.values()) / self._step), 3)]

    def _spread(self, slices: Slices, function: str, started: float, ended: float, last: int) -> None:
        step = self._step
        for number in range(max(int(started / step), self._newest - self._num_slices + 1), last + 1):
            seconds = min(ended, (number + 1) * step) - max(started, number * step)
            if seconds > 0:
                busy = slices.setdefault(number, {})
                busy[function] = busy.get(function, 0.0) + seconds

    def _forget(self) -> None:
        """Let go of what is too old to be shown, and of the executors that have done nothing since."""
        oldest = self._newest - self._num_slices + 1
        for name, slices in list(self._executors.items()):
            for number in [number for number in slices if number < oldest]:
                del slices[number]
            if not slices:
                del self._executors[name]
        while len(self._executors) > MAX_KNOWN:
            del self._executors[min(self._executors, key=lambda name: max(self._executors[name]))]


def _sum(slices: Iterable[dict[str, float]]) -> float:
    return sum(sum(busy.values()) for busy in slices)

"""A timeline as trace events: the JSON that Perfetto, ``chrome://tracing`` and others open.

A process of the trace is a node, or a driver; a thread is an executor. A slice is a task or call, and the arrow to it
leads from where it was submitted: a mark in its driver, or the task that ran there then. Below them are curves.

Owners note an end when they hear of it, which may be for many short tasks at once. As an executor runs its tasks one
after the other, they are put before one another here: each as long as it was, and none later than it was heard of. What
a task has submitted says when it had begun at the latest. What runs side by side in one process, calls of an actor with
threads for instance, has further threads of the trace.

Viewers drop slices that overlap by a nanosecond, have an arrow at a moment stick to the slice that is open then (which
at a slice's end is the next), and turn it round if the slice it comes from begins later. Hence every slice here has a
length, times are whole nanoseconds, and there are no such arrows.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from shoal.model.cells import cell_name
from shoal.observe.records import Record

Event = dict[str, Any]


class _Place(NamedTuple):
    """Where a task is drawn; times are microseconds."""

    process: int
    thread: int
    begin: float
    end: float


#: A record, its lane, and when it is drawn to begin and to end.
_Laid = tuple[Record, int, float, float]

#: Seconds that a call may be put forward for the next one's sake; beyond that it ran beside it.
SLACK = 0.05
#: What things are called in the trace.
_CLUSTER, _UNKNOWN = 1, "(a node that is not known)"
#: Microseconds that the mark of a submission takes at most, and anything at least: as many as viewers tell apart.
_MARK, _LEAST = 1.0, 0.001
#: Slices looked at for one that encloses a submission: as many as run side by side in a process.
_MAX_BESIDE = 64


def trace_events(
    records: Iterable[Record],
    *,
    name: str = "",
    executors: Mapping[str, str],
    hosts: Mapping[str, str],
    history: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the trace: an object with ``traceEvents``, for ``json.dumps``.

    Parameters
    ----------
    records
        What has ended, in any order.
    name
        The cluster's.
    executors
        The node of each executor, as far as is known.
    hosts
        The host of each node, as far as is known.
    history
        Points of the snapshot's ``history``, for the curves.

    Notes
    -----
    Times are microseconds since the first submission; ``otherData`` says when that was.
    """
    found = sorted(records, key=lambda record: record.ended)
    origin = min((record.submitted for record in found), default=0.0)
    trace = _Trace(origin, executors, hosts)
    trace.name_cluster(name)
    ran: dict[str, list[Record]] = {}
    submitted: dict[str, list[float]] = {}
    for record in found:
        submitted.setdefault(record.owner, []).append(record.submitted)
        if record.executor:
            ran.setdefault(record.executor, []).append(record)
    for executor, ended in ran.items():
        trace.add_executor(executor, ended, submitted.get(executor, []))
    trace.add_submissions(found)
    last = max((record.ended for record in found), default=0.0)
    trace.add_history([point for point in history if origin - 1 <= point["time"] <= last + 1])
    origin += trace.begin_at_zero() / 1e6
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(origin)) + f"{origin % 1:.6f}"[1:] + "Z"
    return {
        "traceEvents": trace.events,
        "displayTimeUnit": "ms",
        "otherData": {"cluster": name, "began": began if found else ""},
    }


class _Trace:
    """The events, as they come together."""

    def __init__(self, origin: float, executors: Mapping[str, str], hosts: Mapping[str, str]) -> None:
        self.events: list[Event] = []
        self._origin = origin
        self._executors = executors
        self._hosts = hosts
        #: Processes and threads are numbered as one, as viewers take a thread of a process's number for its main one.
        self._processes: dict[str, int] = {}
        self._threads: dict[tuple[int, str, int], int] = {}
        #: Where each task is drawn, and what each executor ran, by begin.
        self._slices: dict[str, _Place] = {}
        self._busy: dict[str, list[_Place]] = {}
        self._num_arrows = 0

    def name_cluster(self, name: str) -> None:
        self._meta("process_name", _CLUSTER, 0, name=f"cluster {name}".strip())
        self._meta("process_sort_index", _CLUSTER, 0, sort_index=0)

    def add_executor(self, executor: str, ended: list[Record], submitted: list[float]) -> None:
        """Add what has ended in an executor, in the order of its ends; *submitted* is when it submitted work itself."""
        process = self._process(self._executors.get(executor) or _UNKNOWN)
        placed = self._lay_out(ended)
        if all(lane == 0 for _, lane, _, _ in placed):
            placed = _put_forward(placed, sorted(map(self._time, submitted)))
        busy = self._busy[executor] = []
        for record, lane, begin, end in placed:
            thread = self._thread(process, executor, lane)
            self._slice(record.function, record.kind, _Place(process, thread, begin, end), record)
            self._slices[record.task_id] = _Place(process, thread, begin, end)
            busy.append(self._slices[record.task_id])
        busy.sort(key=lambda place: place.begin)

    def _lay_out(self, ended: list[Record]) -> list[_Laid]:
        """Put what ran before one another, as late as can be, in as few lanes as it takes."""
        #: The begin of the slice before which the next one comes, in each lane.
        lanes: list[float] = []
        placed = []
        for record in reversed(ended):
            end = self._time(record.ended)
            slack = float("inf") if record.kind == "task" else SLACK * 1e6
            free = [number for number, begin in enumerate(lanes) if end - begin <= slack]
            if free:
                # The one that has to be put forward least; of those that need not be, the first.
                lane = min(free, key=lambda number: max(0.0, end - lanes[number]))
            else:
                lane = len(lanes)
                lanes.append(end)
            end = min(end, lanes[lane])
            begin = lanes[lane] = round(end - max(record.seconds * 1e6, _LEAST), 3)
            placed.append((record, lane, begin, end))
        placed.reverse()
        return placed

    def add_submissions(self, records: list[Record]) -> None:
        """Add from where each came, and the arrows."""
        marks: dict[str, list[tuple[float, Record]]] = {}
        for record in records:
            submitted = self._time(record.submitted)
            there = self._slices.get(record.task_id)
            if there is not None:
                submitted = min(submitted, there.begin)
            source = self._source(record.owner, submitted)
            if source is None and record.owner not in self._executors:
                marks.setdefault(record.owner, []).append((submitted, record))
            elif source is not None and there is not None and source.begin <= there.begin:
                moment = max(source.begin, min(submitted, round(source.end - _LEAST, 3)))
                self._arrow(source, moment, there)
        for driver, submissions in marks.items():
            self._add_marks(driver, submissions)

    def _add_marks(self, driver: str, submissions: list[tuple[float, Record]]) -> None:
        """Add what a driver has submitted, each before the next: many have the same time."""
        process = self._process(driver)
        thread = self._thread(process, "submits", 0)
        following = float("inf")
        for submitted, record in sorted(submissions, key=lambda submission: submission[0], reverse=True):
            begin = round(min(submitted, following - _LEAST), 3)
            mark = _Place(process, thread, begin, round(min(begin + _MARK, following), 3))
            following = begin
            there = self._slices.get(record.task_id)
            if there is None:
                self.events.append(
                    {
                        "name": f"{record.function} {record.outcome}", "cat": "submit", "ph": "i", "s": "t",
                        "pid": process, "tid": thread, "ts": begin, "args": _arguments(record),
                    }
                )  # fmt: skip
            else:
                self._slice(f"submit {record.function}", "submit", mark, record)
                self._arrow(mark, begin, there)

    def _slice(self, name: str, category: str, place: _Place, record: Record) -> None:
        self.events.append(
            {
                "name": name, "cat": category, "ph": "X", "pid": place.process, "tid": place.thread,
                "ts": place.begin, "dur": round(place.end - place.begin, 3), "args": _arguments(record),
            }
        )  # fmt: skip

    def _arrow(self, source: _Place, moment: float, target: _Place) -> None:
        """Add an arrow that leaves a slice at a moment within it; slices come before it, as both may begin then."""
        self._num_arrows += 1
        arrow = {"name": "submission", "cat": "submission", "id": self._num_arrows}
        self.events.append({**arrow, "ph": "s", "pid": source.process, "tid": source.thread, "ts": moment})
        self.events.append(
            {**arrow, "ph": "f", "bp": "e", "pid": target.process, "tid": target.thread, "ts": target.begin}
        )

    def add_history(self, points: Iterable[Mapping[str, Any]]) -> None:
        # Of the points before the first submission the last is where the curves begin.
        for moment, point in {max(0.0, self._time(point["time"])): point for point in points}.items():
            at = {"ph": "C", "pid": _CLUSTER, "tid": 0, "ts": moment}
            counts = {"running": point["running"], "queued": point["queued"]}
            self.events.append({"name": "tasks", **at, "args": counts})
            self.events.append({"name": "memory", **at, "args": {"bytes": point["memory_used"]}})

    def _source(self, owner: str, moment: float) -> _Place | None:
        """Return the slice of an executor that a submission came from.

        That is the one that encloses the moment, or begins soon after: slices are drawn when they were heard of.
        """
        busy = self._busy.get(owner, [])
        last = bisect.bisect_right(busy, moment, key=lambda place: place.begin)
        for place in reversed(busy[max(0, last - _MAX_BESIDE) : last]):
            if place.begin <= moment <= place.end:
                return place
        if last < len(busy) and busy[last].begin - moment <= SLACK * 1e6:
            return busy[last]
        return None

    def begin_at_zero(self) -> float:
        """Have no time below 0, though a task was put forward to before the first submission; returns the shift."""
        first = min((event["ts"] for event in self.events), default=0.0)
        if first < 0:
            for event in self.events:
                if event["ph"] != "M":
                    event["ts"] = round(event["ts"] - first, 3)
        return min(0.0, first)

    def _time(self, moment: float) -> float:
        return round((moment - self._origin) * 1e6, 3)

    def _process(self, what: str) -> int:
        number = self._processes.get(what)
        if number is None:
            number = self._processes[what] = self._next_number()
            host = self._hosts.get(what)
            label = f"{host} ({what})" if host else what
            self._meta("process_name", number, 0, name=label)
            self._meta("process_sort_index", number, 0, sort_index=number)
        return number

    def _thread(self, process: int, what: str, lane: int) -> int:
        key = (process, what, lane)
        number = self._threads.get(key)
        if number is None:
            number = self._threads[key] = self._next_number()
            self._meta("thread_name", process, number, name=f"{what} ({lane + 1})" if lane else what)
        return number

    def _next_number(self) -> int:
        return _CLUSTER + 1 + len(self._processes) + len(self._threads)

    def _meta(self, what: str, process: int, thread: int, **args: Any) -> None:
        self.events.append({"name": what, "ph": "M", "pid": process, "tid": thread, "ts": 0, "args": args})


def _put_forward(placed: list[_Laid], submitted: list[float]) -> list[_Laid]:
    """Have no slice of a lane begin after what it has submitted, of the times in *submitted*, at most by the slack."""
    found: list[_Laid] = []
    before = float("-inf")
    for record, lane, begin, end in placed:
        first = bisect.bisect_right(submitted, before)
        first = max(first, bisect.bisect_left(submitted, begin - SLACK * 1e6))
        shift = max(0.0, begin - submitted[first]) if first < len(submitted) else 0.0
        before = round(end - shift, 3)
        found.append((record, lane, round(begin - shift, 3), before))
    return found


def _arguments(record: Record) -> dict[str, Any]:
    args: dict[str, Any] = {
        "task": record.task_id, "cell": cell_name(record.cell), "owner": record.owner, "attempt": record.attempt,
        "outcome": record.outcome,
    }  # fmt: skip
    return {**args, "error": record.error} if record.error else args

"""A timeline as trace events: the JSON that Perfetto, ``chrome://tracing`` and others open.

A process of the trace is a node, or a driver; a thread is an executor. A slice is a task or call, and the arrow to it
leads from where it was submitted: a mark in its driver, or the task that ran there then. Below them are curves.

Owners note an end when they hear of it, which may be for many short tasks at once. As an executor runs its tasks one
after the other, they are put before one another here: each as long as it was, and none later than it was heard of. What
runs side by side in one process, calls of an actor with threads for instance, has further threads of the trace.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shoal.model.cells import cell_name
from shoal.observe.records import Record

Event = dict[str, Any]

#: Seconds that a call may be put forward for the next one's sake; beyond that it ran beside it.
SLACK = 0.05
#: What things are called in the trace.
_CLUSTER, _UNKNOWN = 1, "(a node that is not known)"
#: Microseconds that the mark of a submission takes.
_MARK = 1.0
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
    for record in found:
        if record.executor:
            ran.setdefault(record.executor, []).append(record)
    for executor, ended in ran.items():
        trace.add_executor(executor, ended)
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
        self._processes: dict[str, int] = {}
        self._threads: dict[tuple[int, str, int], int] = {}
        #: Where each task is: process, thread, begin, end.
        self._slices: dict[str, tuple[int, int, float, float]] = {}
        #: The slices of each executor: begin, end, process, thread.
        self._busy: dict[str, list[tuple[float, float, int, int]]] = {}

    def name_cluster(self, name: str) -> None:
        self._meta("process_name", _CLUSTER, 0, name=f"cluster {name}".strip())
        self._meta("process_sort_index", _CLUSTER, 0, sort_index=0)

    def add_executor(self, executor: str, ended: list[Record]) -> None:
        """Add what has ended in an executor, in the order of its ends."""
        process = self._process(self._executors.get(executor) or _UNKNOWN)
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
            begin = lanes[lane] = round(end - record.seconds * 1e6, 3)
            placed.append((record, lane, begin, end))
        busy = self._busy[executor] = []
        for record, lane, begin, end in reversed(placed):
            thread = self._thread(process, executor, lane)
            self.events.append(
                {
                    "name": record.function, "cat": record.kind, "ph": "X", "pid": process, "tid": thread,
                    "ts": begin, "dur": round(end - begin, 3), "args": _arguments(record),
                }
            )  # fmt: skip
            self._slices[record.task_id] = process, thread, begin, end
            busy.append((begin, end, process, thread))
        busy.sort()

    def add_submissions(self, records: list[Record]) -> None:
        """Add from where each came, and the arrows."""
        free_from: dict[str, float] = {}
        for number, record in enumerate(sorted(records, key=lambda record: record.submitted), 1):
            submitted = self._time(record.submitted)
            there = self._slices.get(record.task_id)
            if there is not None:
                submitted = min(submitted, there[2])
            source = self._source(record.owner, submitted)
            if source is None and record.owner not in self._executors:
                process = self._process(record.owner)
                thread = self._thread(process, "submits", 0)
                submitted = max(submitted, free_from.get(record.owner, 0.0))
                free_from[record.owner] = submitted + _MARK
                mark = {"cat": "submit", "pid": process, "tid": thread, "ts": submitted, "args": _arguments(record)}
                if there is None:
                    name = f"{record.function} {record.outcome}"
                    self.events.append({"name": name, "ph": "i", "s": "t", **mark})
                else:
                    self.events.append({"name": f"submit {record.function}", "ph": "X", "dur": _MARK, **mark})
                source = process, thread, submitted
            if there is not None and source is not None and source[2] <= there[3]:
                arrow = {"name": "submission", "cat": "submission", "id": number}
                at = {"pid": source[0], "tid": source[1], "ts": source[2]}
                self.events.append({**arrow, "ph": "s", **at})
                end = {"pid": there[0], "tid": there[1], "ts": max(source[2], there[2])}
                self.events.append({**arrow, "ph": "f", "bp": "e", **end})

    def add_history(self, points: Iterable[Mapping[str, Any]]) -> None:
        for point in points:
            at = {"ph": "C", "pid": _CLUSTER, "tid": 0, "ts": max(0.0, self._time(point["time"]))}
            counts = {"running": point["running"], "queued": point["queued"]}
            self.events.append({"name": "tasks", **at, "args": counts})
            self.events.append({"name": "memory", **at, "args": {"bytes": point["memory_used"]}})

    def _source(self, owner: str, moment: float) -> tuple[int, int, float] | None:
        """Return the slice of an executor that a submission came from, and when within it.

        That is the one that encloses the moment, or begins soon after: slices are drawn when they were heard of.
        """
        busy = self._busy.get(owner, [])
        last = bisect.bisect_right(busy, moment, key=lambda piece: piece[0])
        for begin, end, process, thread in reversed(busy[max(0, last - _MAX_BESIDE) : last]):
            if begin <= moment <= end:
                return process, thread, moment
        if last < len(busy) and busy[last][0] - moment <= SLACK * 1e6:
            begin, _, process, thread = busy[last]
            return process, thread, begin
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
            number = self._processes[what] = _CLUSTER + 1 + len(self._processes)
            host = self._hosts.get(what)
            label = f"{host} ({what})" if host else what
            self._meta("process_name", number, 0, name=label)
            self._meta("process_sort_index", number, 0, sort_index=number)
        return number

    def _thread(self, process: int, what: str, lane: int) -> int:
        key = (process, what, lane)
        number = self._threads.get(key)
        if number is None:
            number = self._threads[key] = 1 + len(self._threads)
            self._meta("thread_name", process, number, name=f"{what} ({lane + 1})" if lane else what)
        return number

    def _meta(self, what: str, process: int, thread: int, **args: Any) -> None:
        self.events.append({"name": what, "ph": "M", "pid": process, "tid": thread, "ts": 0, "args": args})


def _arguments(record: Record) -> dict[str, Any]:
    args: dict[str, Any] = {
        "task": record.task_id, "cell": cell_name(record.cell), "owner": record.owner, "attempt": record.attempt,
        "outcome": record.outcome,
    }  # fmt: skip
    return {**args, "error": record.error} if record.error else args

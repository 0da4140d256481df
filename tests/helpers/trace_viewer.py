"""Opens trace events as their viewers do, and refuses what these drop, repair or show otherwise without a word.

The rules are those of the Trace Event Format [1]_ and of how Perfetto's trace processor reads it [2]_: times are whole
nanoseconds, events happen in the order of their times and then of the file, slices of a thread nest or follow one
another and do not contain their ends, and an arrow sticks to the innermost slice that is open where it begins or ends.
Perfetto turns an arrow round whose slices begin in the other order, and draws numbers of threads that are those of
processes as main threads: neither is meant here.

.. [1] https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
.. [2] https://perfetto.dev/docs/getting-started/other-formats and ``src/trace_processor/importers`` of its sources
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Event = dict[str, Any]
Track = tuple[int, int]

_EVERYWHERE = {"name": str, "ph": str, "pid": int, "tid": int, "ts": (int, float)}
#: The fields of each phase beside these; there are no others.
_FIELDS: dict[str, dict[str, Any]] = {
    "X": {"cat": str, "dur": (int, float), "args": dict},
    "i": {"cat": str, "s": str, "args": dict},
    "s": {"cat": str, "id": int},
    "f": {"cat": str, "id": int, "bp": str},
    "C": {"args": dict},
    "M": {"args": dict},
}
#: What metadata may say.
_METADATA = {"process_name": ("name", str), "process_sort_index": ("sort_index", int), "thread_name": ("name", str)}


class Slice(NamedTuple):
    """A piece of work of a thread, from ``begin`` to before ``end``, in nanoseconds."""

    name: str
    category: str
    track: Track
    begin: int
    end: int
    #: How many slices enclose it.
    depth: int
    task: str
    owner: str


@dataclass
class Opened:
    """A trace as a viewer has it."""

    processes: dict[int, str] = field(default_factory=dict)
    threads: dict[Track, str] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    #: What happened at one moment: name, track and nanoseconds.
    marks: list[tuple[str, Track, int]] = field(default_factory=list)
    #: From where to where.
    arrows: list[tuple[Slice, Slice]] = field(default_factory=list)
    #: Points of each curve: nanoseconds and value.
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def work(self) -> dict[str, Slice]:
        """Return what ran, by the ids of tasks."""
        return {piece.task: piece for piece in self.slices if piece.category != "submit"}


def open_trace(text: str) -> Opened:
    """Return what a viewer shows of a file; AssertionError names the event and the rule that it breaks."""
    trace = json.loads(text, parse_constant=_refuse, object_pairs_hook=_without_doubles)
    assert isinstance(trace, dict) and set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}, set(trace)
    assert trace["displayTimeUnit"] in ("ms", "ns") and isinstance(trace["otherData"], dict)
    events = trace["traceEvents"]
    for event in events:
        _check_fields(event)
    shown = Opened()
    _read_names(shown, events)
    _Player(shown).play(sorted((event for event in events if event["ph"] != "M"), key=lambda event: _ns(event["ts"])))
    return shown


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), f"a field is there twice: {pairs}"
    return found


def _check_fields(event: Event) -> None:
    assert event.get("ph") in _FIELDS, f"no such phase: {event}"
    fields = _EVERYWHERE | _FIELDS[event["ph"]]
    assert set(event) == set(fields), f"fields are missing or unknown: {event}"
    for name, kind in fields.items():
        assert isinstance(event[name], kind) and not isinstance(event[name], bool), f"`{name}`: {event}"
    assert 0 <= event["pid"] < 2**32 and 0 <= event["tid"] < 2**32, f"numbers are of 32 bits: {event}"
    assert event["ts"] >= 0 and event["name"], f"it needs a name and a time that is not negative: {event}"
    for name in ("ts", "dur"):
        value = event.get(name, 0)
        assert math.isfinite(value) and value == round(value, 3), f"`{name}` is no whole number of nanoseconds: {event}"
    if event["ph"] == "X":
        assert event["dur"] > 0, f"a slice without a length holds no arrow: {event}"
    elif event["ph"] == "i":
        assert event["s"] in ("g", "p", "t"), f"the scope of a mark: {event}"
    elif event["ph"] == "f":
        assert event["bp"] == "e", f"it would stick to the next slice: {event}"
    elif event["ph"] == "C":
        numbers = event["args"].values()
        assert numbers and all(isinstance(number, int | float) and math.isfinite(number) for number in numbers), event
    elif event["ph"] == "M":
        assert event["name"] in _METADATA, f"unknown metadata: {event}"
        key, kind = _METADATA[event["name"]]
        assert set(event["args"]) == {key} and isinstance(event["args"][key], kind), event


def _read_names(shown: Opened, events: Iterable[Event]) -> None:
    """Read what processes and threads are called: each once, threads by a number that is nothing else's."""
    for event in events:
        track = event["pid"], event["tid"]
        if event["ph"] == "M" and event["name"] == "process_name":
            assert event["pid"] not in shown.processes, f"a process is named twice: {event}"
            shown.processes[event["pid"]] = event["args"]["name"]
        elif event["ph"] == "M" and event["name"] == "thread_name":
            assert track not in shown.threads, f"a thread is named twice: {event}"
            shown.threads[track] = event["args"]["name"]
    numbers = [thread for _, thread in shown.threads]
    assert len(set(numbers)) == len(numbers) and not set(numbers) & set(shown.processes), "threads share a number"
    for event in events:
        assert event["pid"] in shown.processes, f"of a process without a name: {event}"
        assert event["ph"] in "MC" or (event["pid"], event["tid"]) in shown.threads, f"of a nameless thread: {event}"


class _Player:
    """Goes through the events in the order of their times."""

    def __init__(self, shown: Opened) -> None:
        self._shown = shown
        self._open: dict[Track, list[Slice]] = {}
        #: Arrows that have begun: name, category and the slice.
        self._begun: dict[int, tuple[str, str, Slice]] = {}
        self._ended: set[int] = set()

    def play(self, events: Iterable[Event]) -> None:
        for event in events:
            getattr(self, f"_play_{event['ph']}")(event, (event["pid"], event["tid"]), _ns(event["ts"]))
        assert set(self._begun) == self._ended, "arrows that lead nowhere"

    def _play_X(self, event: Event, track: Track, now: int) -> None:
        end = now + _ns(event["dur"])
        inside = self._innermost(track, now)
        assert inside is None or end <= inside.end, f"it begins in a slice and ends after it: {event} {inside}"
        stack, args = self._open.setdefault(track, []), event["args"]
        piece = Slice(event["name"], event["cat"], track, now, end, len(stack), args["task"], args["owner"])
        stack.append(piece)
        self._shown.slices.append(piece)

    def _play_i(self, event: Event, track: Track, now: int) -> None:
        self._shown.marks.append((event["name"], track, now))

    def _play_s(self, event: Event, track: Track, now: int) -> None:
        assert event["id"] not in self._begun, f"two arrows of one number: {event}"
        inside = self._innermost(track, now)
        assert inside is not None, f"an arrow begins in no slice: {event}"
        self._begun[event["id"]] = event["name"], event["cat"], inside

    def _play_f(self, event: Event, track: Track, now: int) -> None:
        name, category, source = self._begun[event["id"]]
        assert event["id"] not in self._ended and (name, category) == (event["name"], event["cat"]), event
        inside = self._innermost(track, now)
        assert inside is not None, f"an arrow ends in no slice: {event}"
        assert source.begin <= inside.begin, f"the arrow would be turned round: {source} {inside}"
        self._ended.add(event["id"])
        self._shown.arrows.append((source, inside))

    def _play_C(self, event: Event, track: Track, now: int) -> None:
        for name, value in event["args"].items():
            points = self._shown.curves.setdefault(f"{event['name']} {name}", [])
            assert not points or points[-1][0] < now, f"a curve has two values at once: {event}"
            points.append((now, value))

    def _innermost(self, track: Track, now: int) -> Slice | None:
        stack = self._open.get(track, [])
        while stack and stack[-1].end <= now:
            stack.pop()
        return stack[-1] if stack else None


def _ns(microseconds: float) -> int:
    return round(microseconds * 1000)

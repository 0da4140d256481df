"""Timelines as trace events, held against the rules of the format."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.records import Record
from shoal.observe.trace_events import SLACK, trace_events

NODES = {"exec-1": "node-1", "exec-2": "node-2"}
HOSTS = {"node-1": "host-a"}
START = 1_700_000_000.0


def record(
    number: int, submitted: float, ended: float, seconds: float, executor: str = "exec-1", **changes: Any
) -> Record:
    started = max(submitted, ended - seconds)
    made = Record(
        f"task-{number}", "task", "f", "In[3]#ab", "driver-1", executor, "finished", START + submitted,
        START + started, START + ended, seconds, 0, "",
    )  # fmt: skip
    return made._replace(**changes)


def make(records: Sequence[Record], **options: Any) -> list[dict[str, Any]]:
    trace = trace_events(records, name="mine", executors=NODES, hosts=HOSTS, **options)
    check(trace)
    return list(trace["traceEvents"])


#: What each phase of the format must have and may have beside ``name``, ``ph``, ``pid``, ``tid`` and ``ts``.
PHASES: dict[str, tuple[set[str], set[str]]] = {
    "X": ({"dur"}, {"cat", "args"}),
    "M": ({"args"}, set()),
    "s": ({"id", "cat"}, set()),
    "f": ({"id", "cat", "bp"}, set()),
    "C": ({"args"}, set()),
    "i": ({"s"}, {"cat", "args"}),
}
METADATA = {"process_name": {"name": str}, "thread_name": {"name": str}, "process_sort_index": {"sort_index": int}}


def check_fields(event: dict[str, Any]) -> None:
    """Hold an event against what the Trace Event Format says of its phase."""
    needed, allowed = PHASES[event["ph"]]
    fields = set(event) - {"name", "ph", "pid", "tid", "ts"}
    assert needed <= fields <= needed | allowed, event
    assert all(isinstance(event.get(name, ""), str) for name in ("name", "cat", "s", "bp")) and event["name"], event
    if event["ph"] == "M":
        shape = METADATA[event["name"]]
        assert {name: type(value) for name, value in event["args"].items()} == shape, event
    assert event["ph"] != "i" or event["s"] in ("g", "p", "t")
    assert isinstance(event.get("args", {}), dict)


def check(trace: dict[str, Any]) -> None:
    """Hold a trace against the format's rules."""
    events = trace["traceEvents"]
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"} and trace["displayTimeUnit"] in ("ms", "ns")
    for event in events:
        check_fields(event)
    assert json.loads(json.dumps(trace, allow_nan=False)) == trace
    for event in events:
        assert {"name", "ph", "pid", "tid", "ts"} <= set(event) and event["ph"] in "XMsfCi", event
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert isinstance(event["ts"], int | float) and event["ts"] >= 0
        assert event["ph"] != "X" or event["dur"] >= 0
        assert event["ph"] != "C" or all(isinstance(value, int | float) for value in event["args"].values())
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    processes = {e["pid"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    threads: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] in "Xi":
            assert (event["pid"], event["tid"]) in named and event["pid"] in processes
        if event["ph"] == "X":
            threads.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for slices in threads.values():
        for (_, end), (begin, _) in itertools.pairwise(sorted(slices)):
            assert begin >= end - 0.01, "slices of a thread follow one another"
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert set(starts) == set(ends) and len(starts) == sum(e["ph"] == "s" for e in events)
    for number, start in starts.items():
        end = ends[number]
        assert start["ts"] <= end["ts"] and end["bp"] == "e" and (start["name"], start["cat"]) == (
            end["name"], end["cat"],
        )  # fmt: skip
        for arrow in (start, end):
            assert any(
                begin - 0.01 <= arrow["ts"] <= finish + 0.01 for begin, finish in threads[arrow["pid"], arrow["tid"]]
            ), "an arrow needs a slice at both ends"


def slices(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {e["args"]["task"]: e for e in events if e["ph"] == "X" and e["cat"] != "submit"}


def test_a_task_is_a_slice_on_its_executor_s_thread_of_its_node() -> None:
    events = make([record(1, 0.0, 3.0, 2.0, attempt=1, outcome="failed", error="ValueError: no")])
    (found,) = slices(events).values()
    assert (found["name"], found["ts"], found["dur"]) == ("f", 1e6, 2e6)
    assert found["args"] == {
        "task": "task-1", "cell": "In[3]", "owner": "driver-1", "attempt": 1, "outcome": "failed",
        "error": "ValueError: no",
    }  # fmt: skip
    names = {
        (e["name"], e["pid"], e["tid"]): e["args"]["name"]
        for e in events
        if e["ph"] == "M" and e["name"] in ("process_name", "thread_name")
    }
    assert names["process_name", found["pid"], 0] == "host-a (node-1)"
    assert names["thread_name", found["pid"], found["tid"]] == "exec-1"
    (start,) = [e for e in events if e["ph"] == "s"]
    assert (start["ts"], names["process_name", start["pid"], 0]) == (0.0, "driver-1")


def test_many_short_tasks_heard_of_at_once_stand_one_before_the_other() -> None:
    found = slices(make([record(number, 0.0, 1.0, 0.001) for number in range(100)]))
    assert len({e["tid"] for e in found.values()}) == 1
    assert {round(e["dur"]) for e in found.values()} == {1000}


def test_what_runs_side_by_side_in_one_process_has_threads_of_its_own() -> None:
    calls = [record(number, 0.0, 1.0 + number / 100, 1.0, kind="call") for number in range(3)]
    found = slices(make(calls))
    assert len({e["tid"] for e in found.values()}) == 3
    short = [record(number, 0.0, 1.0 + number * SLACK / 10, SLACK / 4, kind="call") for number in range(3)]
    assert len({e["tid"] for e in slices(make(short)).values()}) == 1, "heard of late, not side by side"


def test_nested_tasks_come_from_the_task_that_submitted_them() -> None:
    outer = record(1, 0.0, 3.0, 2.9)
    inner = record(2, 1.0, 2.0, 0.5, "exec-2", owner="exec-1")
    events = make([outer, inner])
    found = slices(events)
    starts = {(e["pid"], e["tid"]) for e in events if e["ph"] == "s"}
    assert (found["task-1"]["pid"], found["task-1"]["tid"]) in starts
    events = make([inner])
    assert not [e for e in events if e["ph"] == "s"], "the outer one has not ended: no slice to come from"


def test_what_never_ran_is_a_mark_where_it_was_submitted() -> None:
    events = make([record(1, 0.0, 1.0, 0.0, "", outcome="cancelled"), record(2, 0.0, 1.0, 0.5)])
    (mark,) = [e for e in events if e["ph"] == "i"]
    assert (mark["name"], mark["s"], mark["args"]["outcome"]) == ("f cancelled", "t", "cancelled")


def test_curves_are_those_of_the_time_shown() -> None:
    points = [{"time": START + second, "running": second, "queued": 1, "memory_used": 5} for second in (-10, 0, 1, 10)]
    counters = [e for e in make([record(1, 0.0, 1.5, 1.0)], history=points) if e["ph"] == "C"]
    assert [e["args"] for e in counters if e["name"] == "tasks"] == [
        {"running": 0, "queued": 1}, {"running": 1, "queued": 1},
    ]  # fmt: skip
    assert {e["args"]["bytes"] for e in counters if e["name"] == "memory"} == {5}


def test_nothing_is_a_trace_too() -> None:
    assert [event["ph"] for event in make([])] == ["M", "M"]


times = st.floats(0, 100)


@given(
    st.lists(
        st.builds(
            record,
            st.integers(0, 10**9),
            times,
            times,
            times,
            st.sampled_from(["exec-1", "exec-2", "exec-3", ""]),
            kind=st.sampled_from(["task", "call", "creation"]),
            owner=st.sampled_from(["driver-1", "exec-1", "exec-9"]),
        ),
        max_size=30,
        unique_by=lambda made: made.task_id,
    )
)
def test_whatever_the_records_are_the_rules_hold(records: list[Record]) -> None:
    found = slices(make(records))
    assert set(found) == {made.task_id for made in records if made.executor}

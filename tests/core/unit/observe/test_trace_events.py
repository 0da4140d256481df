"""Timelines as trace events, held against the rules of the format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_viewer import Opened, open_trace

from shoal.observe.records import Record
from shoal.observe.trace_events import SLACK, trace_events

NODES = {"exec-1": "node-1", "exec-2": "node-2"}
#: One of them is on a node that is not known.
EXECUTORS = ("exec-1", "exec-2", "exec-3")
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
    check(records, open_trace(json.dumps(trace, allow_nan=False)))
    return list(trace["traceEvents"])


def check(records: Sequence[Record], shown: Opened) -> None:
    """Hold what a viewer shows against what was to be shown."""
    ran = {made.task_id: made for made in records if made.executor}
    work = shown.work()
    assert set(work) == set(ran)
    assert {piece.depth for piece in shown.slices} <= {0}, "what runs in a thread follows one another"
    for task, piece in work.items():
        made = ran[task]
        assert piece.end - piece.begin == pytest.approx(max(1, made.seconds * 1e9), abs=2), "in nanoseconds"
        assert shown.threads[piece.track].partition(" (")[0] == made.executor
        assert NODES.get(made.executor, "not known") in shown.processes[piece.track[0]]
    assert len({target for _, target in shown.arrows}) == len(shown.arrows), "an arrow is at another's slice"
    for source, target in shown.arrows:
        owner = ran[target.task].owner
        assert source.task == target.task or shown.threads[source.track].partition(" (")[0] == owner
    by_drivers = {task for task, made in ran.items() if made.owner not in NODES and made.owner not in EXECUTORS}
    assert by_drivers <= {target.task for _, target in shown.arrows}, "all that drivers submitted comes from there"


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


def test_a_curve_has_one_value_at_a_time() -> None:
    points = [
        {"time": START + at, "running": 1, "queued": number, "memory_used": 5}
        for number, at in enumerate((-0.9, -0.4, 1))
    ]
    counters = [e for e in make([record(1, 0.0, 1.5, 1.0)], history=points) if e["ph"] == "C" and e["name"] == "tasks"]
    assert [(e["ts"], e["args"]["queued"]) for e in counters] == [(0.0, 1), (1e6, 2)]


def test_times_are_microseconds_since_the_moment_that_it_says() -> None:
    trace = trace_events([record(1, 0.25, 3.0, 2.0)], executors=NODES, hosts=HOSTS)
    (found,) = slices(trace["traceEvents"]).values()
    began = datetime.fromisoformat(trace["otherData"]["began"]).timestamp()
    assert began + found["ts"] / 1e6 == pytest.approx(START + 1.0, abs=1e-6)
    assert began + (found["ts"] + found["dur"]) / 1e6 == pytest.approx(START + 3.0, abs=1e-6)


def test_work_without_a_length_keeps_its_arrow() -> None:
    """The executor was lost, for instance: how long it had run is not known."""
    lost = [record(number, 0.0, 1.0, 0.0, outcome="failed") for number in range(3)]
    make([*lost, record(3, 0.0, 1.5, 0.5)])


def test_thousands_submitted_at_one_moment_come_from_before_they_ran() -> None:
    """A mark of a microsecond for each would reach beyond the begin of the first."""
    make([record(number, 0.0, 0.001 + number * 1e-5, 1e-5) for number in range(3_000)])


def test_a_task_began_before_what_it_submitted() -> None:
    """Its end was heard of late, and it is as long as it was: it is put forward, and the arrow is as it should be."""
    outer = record(1, 0.0, 1.040, 0.020)
    inner = record(2, 1.005, 1.012, 0.002, "exec-2", owner="exec-1")
    before = record(3, 0.0, 1.003, 0.5)
    found = slices(make([outer, inner, before]))
    assert found["task-1"]["ts"] == pytest.approx(1.005e6), "not at 1.020"
    assert found["task-1"]["dur"] == pytest.approx(20_000)


def test_no_number_of_a_thread_is_that_of_a_process() -> None:
    events = make([record(number, 0.0, 1.0, 0.5, f"exec-{number}", owner=f"driver-{number}") for number in range(1, 9)])
    threads = {e["tid"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert not threads & {e["pid"] for e in events}


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"dur": -1.0}, "without a length"),
        ({"dur": 0.0}, "without a length"),
        ({"ts": -1.0}, "not negative"),
        ({"ts": 0.0005}, "nanoseconds"),
        ({"ts": True}, "`ts`"),
        ({"ts": float("nan")}, "no JSON"),
        ({"ph": "Z"}, "phase"),
        ({"pid": 77}, "without a name"),
        ({"tid": 77}, "nameless"),
        ({"pid": "node"}, "`pid`"),
        ({"more": 1}, "unknown"),
        ({"name": ""}, "name"),
        ({"dur": 1_200_000.001}, "ends after it"),
        ({"ts": 900_000.0}, "begins in no slice|ends in no slice|turned round|ends after it"),
    ],
)
def test_the_viewer_of_these_tests_refuses(broken: dict[str, Any], rule: str) -> None:
    first, second = record(1, 0.0, 1.0, 0.5, owner="exec-2"), record(2, 0.0, 2.2, 1.2)
    trace = trace_events([first, second], executors=NODES, hosts=HOSTS)
    open_trace(json.dumps(trace))
    target = next(e for e in trace["traceEvents"] if e["ph"] == "X" and e["cat"] == "task")
    target |= broken
    with pytest.raises(AssertionError, match=rule):
        open_trace(json.dumps(trace))


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

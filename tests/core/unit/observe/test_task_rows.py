"""Finding the newest tasks among records and what is pending."""

from __future__ import annotations

import math
from typing import Any

from shoal.observe.records import CALL, TASK, Batch, RecordBook, RecordBuffer
from shoal.observe.task_rows import NAMES, TaskQuery, TaskRows
from shoal.observe.timeline import FAILED, FINISHED


def batch(owner: str, *tasks: dict[str, Any]) -> Batch:
    buffer = RecordBuffer(0.0)
    for task in tasks:
        fields = {
            "kind": TASK, "function": "f", "cell": "In[1]#aa", "submitted": 1.0, "seconds": 0.5, "executor": "exec-1",
            "outcome": FINISHED, "attempt": 0, **task,
        }  # fmt: skip
        order = ["task_id", "kind", "function", "cell", "submitted", "ended", "seconds", "executor"]
        end = (fields["outcome"], fields["attempt"], fields.get("error", ""))
        buffer.note((*(fields[name] for name in order), *end))
    made = buffer.take(owner)
    assert made is not None
    return made


def pending(task_id: str, state: str = "queued", submitted: float = 1.0, cell: str = "In[1]#aa") -> tuple[Any, ...]:
    return task_id, "obj", "task", "f", cell, state, submitted, 0, "exec-1" if state == "running" else ""


BATCHES = [
    batch("a", {"task_id": "t-1", "ended": 2.0}, {"task_id": "t-2", "ended": 4.0, "cell": "In[2]#bb"}),
    batch("b", {"task_id": "t-3", "ended": 3.0, "function": "g", "kind": CALL, "executor": ""}),
    batch("a", {"task_id": "t-4", "ended": 5.0, "outcome": FAILED, "error": "ValueError: no", "cell": ""}),
]


def find(
    limit: int = 100, waiting: dict[str, list[tuple[Any, ...]]] | None = None, **query: str
) -> dict[str, list[Any]]:
    rows = TaskRows(TaskQuery(**query), limit, {"exec-1": "node-1"})
    for owner, found in (waiting or {}).items():
        rows.add_pending(owner, found)
    rows.begin_ended()
    for one in reversed(BATCHES):
        if not rows.is_full:
            rows.add_batch(one)
    return rows.columns()


def test_the_newest_come_first_whoever_they_are_of() -> None:
    found = find()
    assert list(found) == list(NAMES)
    assert found["task_id"] == ["t-4", "t-2", "t-3", "t-1"]
    assert found["owner"] == ["a", "a", "b", "a"]
    assert found["cell"] == ["", "In[2]", "In[1]", "In[1]"] and found["cell_id"][1] == "In[2]#bb"
    assert found["node"] == ["node-1", "node-1", "", "node-1"]
    assert found["state"] == ["failed", "finished", "finished", "finished"]
    assert found["error"][0] == "ValueError: no" and found["kind"][2] == "call"
    assert found["started"][:2] == [4.5, 3.5] and math.isnan(found["started"][2]), "it did not run"


def test_filters_and_limits() -> None:
    assert find(limit=2)["task_id"] == ["t-4", "t-2"] or find(limit=2)["task_id"] == ["t-4", "t-3"]
    assert find(limit=0)["task_id"] == []
    assert find(cell="In[1]")["task_id"] == find(cell="In[1]#aa")["task_id"] == ["t-3", "t-1"]
    assert find(function="g")["task_id"] == ["t-3"]
    assert find(state="failed")["task_id"] == ["t-4"]
    assert find(cell="In[1]", function="f", state="finished", limit=1)["task_id"] == ["t-1"]


def test_what_is_pending_comes_first_and_counts() -> None:
    waiting = {"a": [pending("t-8", "running", 6.0), pending("t-9", submitted=7.0)], "b": [pending("t-7", cell="")]}
    found = find(waiting=waiting)
    assert found["task_id"][:4] == ["t-9", "t-8", "t-7", "t-4"]
    assert (found["node"][1], found["executor"][1], found["owner"][2]) == ("node-1", "exec-1", "b")
    assert math.isnan(found["ended"][0]) and found["submitted"][0] == 7.0
    assert find(limit=4, waiting=waiting)["task_id"] == ["t-9", "t-8", "t-7", "t-4"]
    assert find(limit=2, waiting=waiting)["task_id"] == ["t-9", "t-8"]


def test_what_ended_meanwhile_is_there_once() -> None:
    assert find(waiting={"a": [pending("t-4", "running")]})["task_id"] == ["t-4", "t-2", "t-3", "t-1"]


def test_pages_of_a_book_go_back_to_the_beginning() -> None:
    book = RecordBook(max_records=50)
    for number in range(60):
        book.add(Batch("a", 1, bytes([number])))
    seen: list[int] = []
    before: int | None = None
    while before != 0:
        batches, before = book.page(7, before)
        assert len(batches) <= 7
        seen = [batch.packed[0] for batch in batches] + seen
    assert seen == list(range(10, 60))
    batches, _ = book.page(7, None)
    book.add(Batch("a", 1, bytes([60])))
    assert [batch.packed[0] for batch in book.page(7, 53)[0]] == list(range(46, 53)), "whatever comes meanwhile"
    assert book.page(7, 3) == ([], 0), "what was let go meanwhile"
    assert RecordBook().page(7) == ([], 0)


def test_a_page_is_bounded() -> None:
    book = RecordBook()
    for _ in range(20):
        book.add(Batch("a", 1, bytes(1 << 20)))
    batches, before = book.page(1_000_000)
    assert (len(batches), before) == (4, 16)
    book.add(Batch("a", 1, bytes(9 << 20)))
    assert len(book.page(1_000_000)[0]) == 1, "one at least, however large"

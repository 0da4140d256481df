"""What the analysis page shows, and the page."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest

from shoal.observe import analysis_page
from shoal.observe.analysis import MAX_BARS, MAX_CELLS, MAX_FUNCTIONS, MAX_LANES, NUM_SLICES, OTHERS, analyse
from shoal.observe.records import Record, RecordBuffer

NODES = (("node-1", "10.0.0.1"), ("node-2", "10.0.0.2"), ("node-3", "10.0.0.2"))


def snapshot(**received: list[list[Any]]) -> dict[str, Any]:
    nodes = [
        {"id": node_id, "host": host, "cpus": 2.0, "received_from": received.get(node_id.replace("-", "_"), [])}
        for node_id, host in NODES
    ]
    history = [{"time": 100.0 + second, "memory_used": 1 << 30, "store_used": 1 << 20} for second in range(5)]
    return {
        "time": 105.0,
        "cluster": {"id": "cluster-1", "name": "bold <heron>"},
        "tasks": {"running": 1, "queued": 2},
        "nodes": nodes,
        "history": history,
    }


def record(start: float, seconds: float, **changes: Any) -> Record:
    return Record(
        "task-1", "task", "train", "In[1]#ab", "driver-1", "exec-1", "finished", start - 1, start, start + seconds,
        seconds, 0, "",
    )._replace(**changes)  # fmt: skip


def test_few_pieces_of_work_are_a_bar_each() -> None:
    found = analyse(
        snapshot(),
        [
            record(100.0, 1.0),
            record(101.0, 3.0, executor="exec-2", function="load", outcome="failed"),
            record(104.0, 0.0, executor="", function="load", outcome="cancelled"),
        ],
    )
    assert (found.begin, found.span, found.num_records, found.num_lanes, found.bin) == (100.0, 4.0, 3, 2, 0.0)
    assert found.lanes == ["exec-2", "exec-1"]
    assert sorted(found.bars) == [(0, 1.0, 4.0, "load", 1, 3.0, True), (1, 0.0, 1.0, "train", 1, 1.0, False)]
    load, train = found.functions
    assert (load.name, load.finished, load.failed, load.cancelled, load.seconds, load.longest) == (
        "load", 0, 1, 1, 3.0, 3.0,
    )  # fmt: skip
    assert train.waited == 1.0
    # All that ran, at any time: two pieces of work of one cell.
    assert sum(found.cells["In[1]"]) * found.width == pytest.approx(4.0)


def test_many_short_ones_are_drawn_together_and_nothing_is_lost() -> None:
    records = [
        record(100 + number / 1000, 0.0009, executor=f"exec-{number % 4}", outcome="failed" if number % 100 == 0 else
               "finished")
        for number in range(30_000)
    ]  # fmt: skip
    records.append(record(100.0, 20.0, executor="exec-0", function="long"))
    found = analyse(snapshot(), records)
    assert len(found.bars) <= 2 * MAX_BARS
    assert sum(bar.number for bar in found.bars) == 30_001
    assert sum(bar.unsuccessful for bar in found.bars) == 300
    assert sum(bar.busy for bar in found.bars) == pytest.approx(47.0)
    assert [bar.number for bar in found.bars if bar.function == "long"] == [1]
    assert sum(map(sum, found.cells.values())) * found.width == pytest.approx(47.0)


def test_long_ones_that_overlap_do_not_flood_the_page() -> None:
    records = [record(100 + number / 1000, 20.0) for number in range(20_000)]
    found = analyse(snapshot(), records)
    assert len(found.bars) <= 2 * MAX_BARS
    assert sum(bar.number for bar in found.bars) == 20_000


def test_only_so_many_executors_functions_and_cells_are_told_apart() -> None:
    records = [
        record(100.0, 1.0 + number, executor=f"exec-{number}", function=f"f{number}", cell=f"In[{number}]#a")
        for number in range(60)
    ]
    found = analyse(snapshot(), records)
    assert (len(found.lanes), found.num_lanes) == (MAX_LANES, 60)
    assert len(found.names) == MAX_FUNCTIONS + 1
    assert {bar.function for bar in found.bars} == set(found.names)
    assert len(found.functions) == 60
    assert list(found.cells)[-1] == OTHERS
    assert len(found.cells) == MAX_CELLS + 1
    assert all(len(levels) == NUM_SLICES and all(map(math.isfinite, levels)) for levels in found.cells.values())


def test_transfers_are_by_source_and_receiver() -> None:
    found = analyse(snapshot(node_1=[["node-2", 5], ["node-gone", 7]], node_3=[["node-1", 9]]), ())
    # A node that has left is still where something came from.
    assert found.nodes == ["10.0.0.1", "10.0.0.2 node-2", "10.0.0.2 node-3", "node-gone"]
    assert found.transfers == {(1, 0): 5, (3, 0): 7, (0, 2): 9}


def texts(html: str) -> str:
    body = html[html.index("<main>") : html.index("</main>")]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_the_page_needs_nothing_from_outside_and_says_it_in_words_too() -> None:
    hostile = "</script><img src=x onerror=alert(1)>@{x}"
    records = [record(100.0, 1.0), record(101.0, 0.5, function=hostile, cell="", executor="exec-2", outcome="failed")]
    html = analysis_page.render(snapshot(node_1=[["node-2", 3 << 20]]), records, {"In[1]": {"memory": 1 << 20}})
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=", html)
    assert "</script><img" not in html
    assert "<title>Analysis of bold &lt;heron&gt;</title>" in html
    said = texts(html)
    assert "2 tasks and calls have ended within 1.5 s in 2 executors: 1 failed, 0 were cancelled." in said
    assert "3.0 MiB of copies went from one node to another" in said
    for section in ("timeline", "cells", "history", "values", "durations", "transfers"):
        assert f'aria-labelledby="title-{section}" aria-describedby="words-{section}"' in html


def test_a_page_of_nothing() -> None:
    empty = snapshot() | {"history": []}
    said = texts(analysis_page.render(empty, ()))
    assert "No task or call has ended yet." in said
    assert "No value was copied from one node to another." in said


def test_packed_records_and_many_of_them() -> None:
    buffer = RecordBuffer(0.0)
    batches = []
    for number in range(100_000):
        start = 100 + number / 1000
        executor = f"exec-{number % 8}"
        buffer.note((f"task-a-{number}", 0, f"f{number % 7}", "In[1]#a", start, start + 0.01, 0.01, executor, 0, 0, ""))
        if number % 1_000 == 999:
            batches.append(buffer.take("driver-1"))
    started = time.monotonic()
    html = analysis_page.render(snapshot(), batches)
    assert time.monotonic() - started < 30.0
    assert len(html) < 5_000_000
    said = texts(html)
    assert "100,000 tasks and calls have ended" in said
    assert "There are too many pieces of work to draw each" in said


def test_memory_by_cell_goes_on_to_the_time_of_the_page() -> None:
    rows = [
        {"cell": "In[1]#ab", "points": [[100.0, 0], [101.0, 5]]},
        {"cell": "In[1]#cd", "points": [[100.0, 0], [102.0, 1 << 20], [103.0, 0]]},
        {"cell": "", "points": [[100.0, 7]]},
    ]
    found = analyse({**snapshot(), "cell_memory": rows}, [])
    assert found.memory == {
        "In[1]": [(100.0, 0), (102.0, 1 << 20), (103.0, 0), (105.0, 0)],
        "no cell": [(100.0, 7), (105.0, 7)],
        "In[1] (2)": [(100.0, 0), (101.0, 5), (105.0, 5)],
    }
    assert analyse(snapshot(), []).memory == {}
    page = analysis_page.render({**snapshot(), "cell_memory": rows}, [])
    assert "Memory by cell over time" in page and "Most were those of In[1]: 1.0 MiB." in page

"""The task grid, from records."""

from __future__ import annotations

from array import array

import pytest

from shoal.observe.records import Columns
from shoal_labextension.grid import MAX_EXECUTORS, NUM_SLICES, Grid, Running

#: A second in Unix time.
T = 1_700_000_000


def columns(*rows):
    """Records: executor, function, when it ended, seconds it took."""
    executors, functions, ended, seconds = map(list, zip(*rows, strict=True))
    blank = [""] * len(rows)
    return Columns(
        blank, blank, functions, blank, executors, blank, array("d"), array("d", ended), array("d", seconds),
        array("B"), {},
    )  # fmt: skip


def slices_of(grid, now, executor="a", running=()):
    [row] = [row for row in grid.rows(now, {}, running) if row["id"] == executor]
    assert len(row["slices"]) == NUM_SLICES
    return {NUM_SLICES - 1 - index: tuple(cell) for index, cell in enumerate(row["slices"]) if cell[0] is not None}


def test_short_work_adds_up_in_its_second():
    grid = Grid()
    grid.add(columns(("a", "f", T + 0.3, 0.1), ("a", "g", T + 0.6, 0.2), ("a", "f", T + 0.9, 0.2)))
    assert slices_of(grid, T + 2) == {2: ("f", 0.5)}


def test_long_work_fills_the_seconds_it_took():
    grid = Grid()
    grid.add(columns(("a", "f", T + 3.25, 2.5)))
    assert slices_of(grid, T + 3) == {3: ("f", 0.25), 2: ("f", 1.0), 1: ("f", 1.0), 0: ("f", 0.25)}


def test_calls_beside_one_another_are_no_more_than_all():
    grid = Grid()
    grid.add(columns(*[("a", "f", T + 0.9, 0.8)] * 5))
    assert slices_of(grid, T) == {0: ("f", 1.0)}


def test_what_is_older_than_a_minute_is_forgotten():
    grid = Grid()
    grid.add(columns(("a", "f", T + 0.5, 0.1), ("b", "f", T + 59.5, 0.1)))
    assert {row["id"] for row in grid.rows(T + 59, {})} == {"a", "b"}
    assert {row["id"] for row in grid.rows(T + 60, {})} == {"b"}
    assert grid.executors == {"b"}
    grid.add(columns(("c", "f", T - 500, 0.1), ("d", "g", T + 61, 1e9)))
    assert slices_of(grid, T + 61, "d") == {back: ("g", 1.0) for back in range(1, NUM_SLICES)}
    assert {row["id"] for row in grid.rows(T + 61, {})} == {"b", "d"}


def test_the_busiest_are_shown_by_node():
    grid = Grid()
    grid.add(columns(*[(f"executor-{number:03}", "f", T + 0.99, number / 1000) for number in range(1, 101)]))
    rows = grid.rows(T, {f"executor-{number:03}": f"node-{number % 2}" for number in range(101)})
    assert len(rows) == MAX_EXECUTORS
    assert {row["id"] for row in rows} == {f"executor-{number:03}" for number in range(37, 101)}
    assert [row["node"] for row in rows] == ["node-0"] * 32 + ["node-1"] * 32


@pytest.mark.parametrize("row", [("", "f", T, 0.1), ("a", "f", T, 0.0), ("a", "f", float("nan"), 0.1)])
def test_what_did_not_run_is_not_there(row):
    grid = Grid()
    grid.add(columns(row))
    assert grid.rows(T, {}) == []


def test_what_runs_is_drawn_up_to_now_and_leaves_no_trace():
    grid = Grid()
    grid.add(columns(("a", "f", T + 0.5, 0.5)))
    running = [Running("a", "g", T + 0.75), Running("b", "h", T - 1000.0)]
    assert slices_of(grid, T + 2.5, running=running) == {2: ("f", 0.75), 1: ("g", 1.0), 0: ("g", 0.5)}
    assert len(slices_of(grid, T + 2.5, "b", running)) == NUM_SLICES, "no further back than the grid reaches"
    assert slices_of(grid, T + 2.5) == {2: ("f", 0.5)}

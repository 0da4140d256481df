"""How far the work of each cell is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.cell_progress import MAX_CELLS, MAX_FAILURES, MAX_FUNCTIONS, OTHERS, CellBook, CellWork
from shoal.observe.functions import CANCELLED

CELL = "In[3]#run"


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def make_book(clock: Clock | None = None) -> tuple[CellBook, list[CellWork]]:
    told: list[CellWork] = []
    return CellBook(clock or Clock(), None, told.append), told


def look(book: CellBook):  # type: ignore[no-untyped-def]
    cell = book.find(CELL)
    assert cell is not None
    return cell.look()


fates = st.sampled_from(["finish", "fail", "cancel", "drop", "return", "queued", "running"])


@given(st.lists(st.tuples(st.sampled_from("abc"), fates), min_size=1, max_size=60))
def test_counts_are_exact(works: list[tuple[str, str]]) -> None:
    book, _ = make_book()
    for name, fate in works:
        tally = book.submit(CELL, name)
        if fate == "return":
            tally.send()
            tally.take_back()
        elif fate == "drop":
            tally.fail(False, 0.0, "")
        elif fate != "queued":
            tally.send()
        if fate == "finish":
            tally.finish(True, 1.0, "a")
        elif fate == "fail":
            tally.fail(True, 1.0, "a")
        elif fate == "cancel":
            tally.fail(True, 0.0, "", CANCELLED)
    progress, kinds = look(book), [fate for _, fate in works]
    assert progress.submitted == len(works)
    assert progress.finished == kinds.count("finish")
    assert progress.failed == kinds.count("fail") + kinds.count("drop")
    assert progress.cancelled == kinds.count("cancel")
    assert progress.running == kinds.count("running")
    assert progress.pending == kinds.count("running") + kinds.count("queued") + kinds.count("return")
    assert {row.name: row.submitted for row in progress.functions} == {
        name: sum(name == other for other, _ in works) for name in {name for name, _ in works}
    }


def test_time_stops_with_the_last_end() -> None:
    clock = Clock()
    book, _ = make_book(clock)
    tally = book.submit(CELL, "f")
    clock.now += 2.0
    assert look(book).elapsed == 2.0
    tally.finish(False, 1.0, "a")
    clock.now += 5.0
    assert look(book).elapsed == 2.0


def test_work_of_no_cell_is_in_no_cell() -> None:
    book, told = make_book()
    book.submit(None, "f")
    assert book.cells() == [] and told == []


def test_whoever_watches_is_told_until_he_does() -> None:
    book, told = make_book()
    book.submit(CELL, "f")
    told[0].watched = True
    book.submit(CELL, "f")
    told[0].watched = False
    book.submit(CELL, "f")
    assert len(told) == 2


def test_old_cells_further_functions_and_further_errors_are_not_kept() -> None:
    book, _ = make_book()
    for number in range(MAX_CELLS + 10):
        book.submit(f"In[{number}]#x", "f")
    assert len(book.cells()) == MAX_CELLS and book.find("In[9]#x") is None
    for number in range(MAX_FUNCTIONS + 10):
        book.submit(CELL, f"f{number}")
    assert len(look(book).functions) == MAX_FUNCTIONS + 1
    assert look(book).functions[-1].name == OTHERS and look(book).functions[-1].submitted == 10
    cell = book.find(CELL)
    assert cell is not None
    cell.note_failure("f", ("e", b"x" * 1_000_000))
    for _ in range(MAX_FAILURES + 3):
        cell.note_failure("f", ("e", b"x"))
    assert len(cell.failures) == MAX_FAILURES


def test_no_estimate_before_each_function_has_ended_once() -> None:
    book, _ = make_book()
    first = book.submit(CELL, "f")
    book.submit(CELL, "g")
    first.finish(False, 1.0, "a")
    assert look(book).left() is None


@pytest.mark.parametrize("num_executors", [1, 4])
def test_an_estimate_holds_what_is_left_of_even_work(num_executors: int) -> None:
    clock = Clock()
    book, _ = make_book(clock)
    tallies = [book.submit(CELL, "f") for _ in range(40)]
    for round_ in range(20 // num_executors):
        clock.now += 2.0
        for number in range(num_executors):
            tallies[round_ * num_executors + number].finish(False, 2.0, f"executor-{number}")
    left = look(book).left()
    assert left is not None
    assert left[0] <= 20 * 2.0 / num_executors <= left[1]
    assert left[1] <= 1.1 * 20 * 2.0 / num_executors


def test_uneven_work_gives_a_wide_estimate() -> None:
    clock = Clock()
    book, _ = make_book(clock)
    tallies = [book.submit(CELL, "f") for _ in range(20)]
    for number, tally in enumerate(tallies[:10]):
        clock.now += 1.0
        tally.finish(False, 0.1 if number % 2 else 1.9, "a")
    left = look(book).left()
    assert left is not None
    assert left[0] < 10.0 < left[1] and left[1] > 1.5 * left[0]

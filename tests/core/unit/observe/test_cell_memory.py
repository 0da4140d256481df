"""Curves of how much the values of cells take."""

from __future__ import annotations

from shoal.observe.cell_memory import MAX_CELLS, MAX_POINTS, CellMemoryBook


def curves(book: CellMemoryBook) -> dict[str, list[list[float]]]:
    return {row["cell"]: row["points"] for row in book.rows()}


def test_a_curve_is_the_sum_over_owners_and_ends_with_them() -> None:
    book = CellMemoryBook()
    book.report("driver-1", [("In[1]#a", 100)], 10.0)
    book.report("exec-1", [("In[1]#a", 20), ("In[2]#b", 5)], 11.0)
    book.report("driver-1", [], 12.0)
    book.owner_left("exec-1", 13.0)
    book.owner_left("exec-9", 14.0)
    assert curves(book) == {
        "In[1]#a": [[10.0, 0], [10.0, 100], [11.0, 120], [12.0, 20], [13.0, 0]],
        "In[2]#b": [[11.0, 0], [11.0, 5], [13.0, 0]],
    }


def test_what_has_not_changed_adds_no_point() -> None:
    book = CellMemoryBook()
    for second in range(5):
        book.report("driver-1", [("In[1]#a", 100)], float(second))
    assert curves(book) == {"In[1]#a": [[0.0, 0], [0.0, 100]]}


def test_it_stays_small() -> None:
    book = CellMemoryBook()
    for number in range(3 * MAX_CELLS):
        book.report("driver-1", [(f"In[{number}]#a", 1), ("In[x]#b", number)], float(number))
    found = curves(book)
    assert len(found) == MAX_CELLS and "In[0]#a" not in found and len(found["In[x]#b"]) <= MAX_POINTS
    for number in range(2 * MAX_POINTS):
        book.report("driver-1", [("In[x]#b", number)], 1000.0 + number)
    assert len(curves(book)["In[x]#b"]) == MAX_POINTS

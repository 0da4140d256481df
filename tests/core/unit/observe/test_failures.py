"""Errors in groups."""

from __future__ import annotations

from shoal.observe.failures import MAX_ERROR_NBYTES, MAX_GROUPS, FailureBook, is_small


def test_the_same_error_of_the_same_function_in_the_same_cell_is_one_group() -> None:
    book = FailureBook()
    for _ in range(3):
        book.note("In[1]", "f", "ValueError: no")
    book.note("In[1]", "g", "ValueError: no")
    book.note("In[2]", "f", "ValueError: no")
    assert [(group.cell, group.function, group.count) for group in book.groups()] == [
        ("In[1]", "f", 3), ("In[1]", "g", 1), ("In[2]", "f", 1),
    ]  # fmt: skip
    assert [group.cell for group in book.groups("In[2]")] == ["In[2]"]
    assert book.groups("In[9]") == []


def test_the_groups_that_came_last_are_kept() -> None:
    book = FailureBook()
    for number in range(MAX_GROUPS):
        book.note("", "f", str(number))
    book.note("", "f", "0")
    book.note("", "f", "one more")
    summaries = {group.summary for group in book.groups()}
    assert len(summaries) == MAX_GROUPS and "0" in summaries and "1" not in summaries


def test_only_small_errors_are_kept() -> None:
    assert is_small((1, b"x" * MAX_ERROR_NBYTES))
    assert not is_small((1, b"x" * MAX_ERROR_NBYTES, b"x"))

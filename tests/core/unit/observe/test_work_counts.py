"""Counts of a cluster's work by function and cell, made of what owners say has changed."""

from __future__ import annotations

from shoal.observe.work_counts import MAX_CELLS, MAX_FUNCTIONS, MAX_KNOWN_FUNCTIONS, OTHERS, WorkCounts

CELL = "In[3]#ab"


def row(cell: str = "", name: str = "f", **counts: float) -> tuple:
    order = ("queued", "running", "finished", "failed", "cancelled", "seconds")
    return (cell, name, *(counts.get(key, 0) for key in order))


def make(*owners: str) -> WorkCounts:
    counts = WorkCounts()
    for owner in owners:
        counts.owner_joined(owner)
    return counts


def test_what_owners_say_is_added_up() -> None:
    counts = make("driver", "exec")
    counts.add("driver", "driver", (row(queued=3), row(name="g", running=1)), 1.0)
    counts.add("exec", "driver", (row(queued=2),), 1.0)
    counts.add("driver", "driver", (row(queued=-1, running=1), row(name="g", running=-1, failed=1, seconds=2.0)), 2.0)
    assert counts.total[:5] == (4, 1, 0, 1, 0)
    assert [(found["name"], found["running"], found["failed"]) for found in counts.function_rows()] == [
        ("f", 1, 0),
        ("g", 0, 1),
    ]
    assert (counts.queued_by("driver"), counts.queued_by("exec")) == (2, 2)


def test_what_an_owner_had_not_ended_goes_with_it_and_what_had_stays() -> None:
    counts = make("driver")
    counts.add("driver", "driver", (row(CELL, queued=3, running=2, finished=5, seconds=1.0),), 1.0)
    counts.owner_left("driver", 2.0)
    assert counts.total == (0, 0, 5, 0, 0, 1.0)
    (cell,) = counts.cell_rows()
    assert (cell["queued"], cell["running"], cell["finished"], cell["owner"]) == (0, 0, 5, "driver")


def test_a_cell_knows_its_driver_its_time_and_its_functions() -> None:
    counts = make("exec")
    counts.add("exec", "driver-7", (row(CELL, "f", running=1),), 10.0)
    counts.add("exec", "driver-7", (row(CELL, "g", finished=4, seconds=8.0),), 12.5)
    (cell,) = counts.cell_rows()
    assert (cell["id"], cell["name"], cell["owner"], cell["began"], cell["changed"]) == (
        CELL, "In[3]", "driver-7", 10.0, 12.5,
    )  # fmt: skip
    assert [found["name"] for found in cell["functions"]] == ["f", "g"]
    assert (cell["running"], cell["finished"], cell["seconds"]) == (1, 4, 8.0)


def test_cells_that_have_ended_are_forgotten_before_those_that_go_on() -> None:
    counts = make("driver")
    counts.add("driver", "driver", (row("first", running=1),), 0.0)
    for number in range(MAX_CELLS + 5):
        counts.add("driver", "driver", (row(f"cell {number}", finished=1),), float(number))
    listed = [cell["id"] for cell in counts.cell_rows()]
    assert len(listed) == MAX_CELLS and listed[0] == "first" and listed[-1] == f"cell {MAX_CELLS + 4}"
    assert counts.total.finished == MAX_CELLS + 5


def test_the_busiest_functions_are_listed_and_all_are_counted() -> None:
    counts = make("driver")
    rows = tuple(row(name=f"f{number}", finished=1, seconds=float(number)) for number in range(MAX_FUNCTIONS + 20))
    counts.add("driver", "driver", (*rows, row(name="busy", running=1)), 0.0)
    listed = [found["name"] for found in counts.function_rows()]
    assert len(listed) == MAX_FUNCTIONS and listed[:2] == ["busy", f"f{MAX_FUNCTIONS + 19}"]
    assert counts.total.finished == MAX_FUNCTIONS + 20


def test_names_without_end_are_counted_together() -> None:
    counts = make("driver")
    counts.add("driver", "driver", tuple(row(name=f"f{n}", finished=1) for n in range(MAX_KNOWN_FUNCTIONS + 9)), 0.0)
    assert len(counts._functions) == MAX_KNOWN_FUNCTIONS + 1
    assert counts._functions[OTHERS].finished == 9

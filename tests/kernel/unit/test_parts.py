"""How often a cell runs, and how its values are put together."""

from __future__ import annotations

import itertools

import pytest
from IPython.core.error import UsageError

from shoal_kernel.cell_run import collect
from shoal_kernel.parts import MAX_PARTS, for_each, ranks


def test_one_run_for_each_value() -> None:
    parts = for_each(["lr in [0.1, 0.01]"], {})
    assert parts.names == {"lr"}
    assert [(part.label, part.key, dict(part.variables)) for part in parts.parts] == [
        ("lr=0.1", 0.1, {"lr": 0.1}),
        ("lr=0.01", 0.01, {"lr": 0.01}),
    ]


def test_several_names_conditions_and_the_notebooks_variables() -> None:
    parts = for_each(["a, b in zip(xs, ys) if a"], {"xs": [0, 1, 2], "ys": "pqr"})
    assert [part.key for part in parts.parts] == [(1, "q"), (2, "r")]
    assert parts.parts[0].label == "a=1, b='q'"


def test_clauses_multiply() -> None:
    parts = for_each(["a in [1, 2]", "b in 'xy'"], {})
    assert [part.key for part in parts.parts] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


def test_no_two_have_the_same_label() -> None:
    assert [part.label for part in for_each(["i in [1, 1, 2]"], {}).parts] == ["i=1", "i=1 (2)", "i=2"]


def test_labels_of_large_values_are_short() -> None:
    (part,) = for_each(["x in [list(range(10_000))]"], {}).parts
    assert len(part.label) < 60


@pytest.mark.parametrize(
    ("clauses", "words"),
    [
        (["lr"], "invalid syntax"),
        (["lr of [1]"], "invalid syntax"),
        (["x in [1] for y in [2]"], "one `in` for each"),
        (["x.a in [1]"], "names only"),
        (["x in []"], "no value to run the cell for"),
        (["x in 5"], "TypeError: 'int' object is not iterable"),
        (["x in missing"], "NameError: name 'missing' is not defined"),
        (["x in [1]", "x in [2]"], "binds `x` twice"),
        (["x in range(200)", "y in range(200)"], "40,000 runs of the cell; 10,000 are possible"),
        (["x in [1]] + [2"], "it looks like|It looks like"),
        (["x in range(10_001)"], "more than 10,000 values"),
        (["i in itertools.count()"], '`--each "i in itertools.count\\(\\)"`: it has more than 10,000 values'),
        (["i in itertools.count() if i % 2", "j in itertools.count()"], "more than 10,000 values"),
        (["i in (1 / (3 - n) for n in itertools.count())"], "ZeroDivisionError: division by zero"),
    ],
)
def test_what_means_nothing_is_refused(clauses: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        for_each(clauses, {"itertools": itertools})


def test_of_what_never_ends_no_more_is_taken_than_it_takes_to_know() -> None:
    numbers = itertools.count()
    with pytest.raises(UsageError, match="more than 10,000 values"):
        for_each(["i in numbers"], {"numbers": numbers})
    assert next(numbers) == MAX_PARTS + 1


def test_as_many_as_are_possible() -> None:
    assert len(for_each([f"i in range({MAX_PARTS})"], {}).parts) == MAX_PARTS


def test_ranks() -> None:
    parts = ranks(3)
    assert parts.kind == "list"
    assert [dict(part.variables) for part in parts.parts] == [{"rank": rank, "world_size": 3} for rank in range(3)]


@pytest.mark.parametrize(
    ("kind", "keys", "values", "whole"),
    [
        ("one", [None], [5], 5),
        ("list", [0, 1], ["a", "b"], ["a", "b"]),
        ("dict", [0.1, 0.2], ["a", "b"], {0.1: "a", 0.2: "b"}),
        ("dict", [[1], [2]], ["a", "b"], [([1], "a"), ([2], "b")]),
        ("dict", [1, 1.0], ["a", "b"], [(1, "a"), (1.0, "b")]),
    ],
)
def test_values_are_put_together(kind: str, keys: list[object], values: list[object], whole: object) -> None:
    assert collect(kind, keys, values) == whole

"""Parts of a cell that fail alike are told once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from shoal_kernel.grouping import CellErrors, group_errors, join_labels


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def raised_elsewhere(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def ranks(make: Callable[[int], BaseException], count: int, *missing: int) -> list[tuple[str, BaseException]]:
    return [(f"rank {number}", make(number)) for number in range(count) if number not in missing]


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def test_identical_errors_become_one_of_the_users_own_type() -> None:
    error = group_errors(ranks(lambda number: raised(ValueError("bad shape")), 8, 4), num_ok=1)
    with pytest.raises(ValueError, match="bad shape"):
        raise error
    assert notes(error) == ["7 of 8: rank 0-3, 5-7; 1 succeeded"]


def test_a_number_in_the_message_makes_a_difference() -> None:
    error = group_errors(ranks(lambda number: raised(ValueError(f"shard {number}")), 3), num_ok=0)
    assert isinstance(error, CellErrors)
    assert [str(member) for member in error.exceptions] == ["shard 0", "shard 1", "shard 2"]


def test_another_type_place_or_cause_makes_a_difference() -> None:
    def caused() -> BaseException:
        error = raised(ValueError("x"))
        error.__cause__ = KeyError("why")
        return error

    errors = [raised(ValueError("x")), raised(KeyError("x")), raised_elsewhere(ValueError("x")), caused()]
    group = group_errors([(f"lr={number}", error) for number, error in enumerate(errors)], num_ok=0)
    assert isinstance(group, CellErrors) and len(group.exceptions) == 4


def test_the_commonest_comes_first_and_each_says_whose_it_is() -> None:
    failures = [("rank 0", raised(KeyError("k"))), *ranks(lambda number: raised(ConnectionError("gone")), 4, 0)]
    group = group_errors(failures, num_ok=2)
    assert isinstance(group, CellErrors)
    assert group.message == "4 of 6 parts failed, in 2 ways; 2 succeeded"
    assert [type(member) for member in group.exceptions] == [ConnectionError, KeyError]
    assert notes(group.exceptions[0]) == ["3 of 6: rank 1-3; 2 succeeded"]
    assert notes(group.exceptions[1]) == ["1 of 6: rank 0; 2 succeeded"]


def test_a_group_is_taken_apart_by_except_star() -> None:
    failures = [("a", raised(KeyError("k"))), ("b", raised(ValueError("v")))]
    caught: list[BaseException] = []
    with pytest.raises(ExceptionGroup) as left:
        try:
            raise group_errors(failures, num_ok=0)
        except* ValueError as values:
            caught += values.exceptions
    assert [str(error) for error in caught] == ["v"]
    assert isinstance(left.value, CellErrors) and [type(error) for error in left.value.exceptions] == [KeyError]


def test_a_group_shows_every_member_once() -> None:
    failures = [
        ("rank 0", raised(KeyError("k"))),
        ("rank 1", raised(ValueError("v"))),
        ("rank 2", raised(KeyError("k"))),
    ]
    group = group_errors(failures, num_ok=0)
    assert isinstance(group, CellErrors)
    shown = "\n".join(group._render_traceback_())
    for text in ("3 of 3 parts failed, in 2 ways", "(1 of 2)", "(2 of 2)", "2 of 3: rank 0, 2", "1 of 3: rank 1"):
        assert shown.count(text) == 1, shown
    assert shown.count("KeyError: 'k'") == 1 and shown.count("ValueError: v") == 1


def test_a_single_part_needs_no_note() -> None:
    assert notes(group_errors([("", raised(ValueError("x")))], num_ok=0)) == []


class Odd(Exception):
    """Cannot be made with one argument, copied, or shown."""

    def __init__(self, code: int, lock: Any) -> None:
        super().__init__()
        self.code, self.lock = code, lock

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __copy__(self) -> Any:
        raise TypeError("no copy")

    __reduce__ = __deepcopy__ = __copy__  # type: ignore[assignment]


class NoNotes(Exception):
    def add_note(self, note: str) -> None:
        raise AttributeError(note)


def test_errors_of_odd_classes_are_grouped_too() -> None:
    error = group_errors(ranks(lambda number: raised(Odd(number, threading.Lock())), 2), num_ok=0)
    assert isinstance(error, Odd) and error.code == 0 and notes(error) == ["2 of 2: rank 0-1"]
    assert isinstance(group_errors(ranks(lambda number: raised(NoNotes("x")), 2), num_ok=0), NoNotes)


def test_classes_that_came_by_value_are_the_same() -> None:
    def made(number: int) -> BaseException:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec("class Mine(Exception): pass", namespace)
        return raised(namespace["Mine"]("x"))

    assert type(group_errors(ranks(made, 3), num_ok=0)).__name__ == "Mine"


def test_what_is_no_exception_makes_a_base_group() -> None:
    group = group_errors([("a", raised(KeyboardInterrupt())), ("b", raised(ValueError("v")))], num_ok=0)
    assert type(group) is BaseExceptionGroup and len(group.exceptions) == 2


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["rank 0"], "rank 0"),
        (["rank 3", "rank 0", "rank 1", "rank 7"], "rank 0-1, 3, 7"),
        (["lr=0.1", "lr=0.01"], "lr=0.1, lr=0.01"),
        (["node-a", "node-b"], "node-a, node-b"),
        (["x=1", "y=2"], "x=1, y=2"),
        (
            [f"lr={number}.5" for number in range(14)],
            ", ".join(f"lr={number}.5" for number in range(12)) + " and 2 more",
        ),
    ],
)
def test_labels_are_said_in_short(labels: list[str], said: str) -> None:
    assert join_labels(labels) == said

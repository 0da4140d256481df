"""How long work took, by size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.durations import FIRST, LAST, Durations

SECONDS = st.lists(st.floats(0, 1e9), max_size=50)


@given(SECONDS)
def test_every_one_is_counted_in_the_class_that_holds_it(seconds: list[float]) -> None:
    found = Durations()
    for each in seconds:
        found.add(each)
    classes = list(found.classes())
    assert len(found) == len(seconds) == sum(count for _, _, count in classes)
    for low, high, count in classes:
        inside = [
            each
            for each in seconds
            if (low <= each or low == 2.0 ** (FIRST - 1)) and (each < high or high == 2.0**LAST)
        ]
        assert count == len(inside)


@given(SECONDS, SECONDS)
def test_merged_counts_are_those_of_all(first: list[float], second: list[float]) -> None:
    parts, whole = (Durations(), Durations()), Durations()
    for part, seconds in zip(parts, (first, second), strict=True):
        for each in seconds:
            part.add(each)
            whole.add(each)
    parts[0].merge(parts[1])
    assert list(parts[0].classes()) == list(whole.classes())
    assert len(list(whole.classes())) <= LAST - FIRST + 1


def test_classes_come_in_order_each_twice_as_wide() -> None:
    found = Durations()
    for each in (1.0, 0.003, 1.9, 2.0):
        found.add(each)
    assert list(found.classes()) == [(2**-9, 2**-8, 1), (1.0, 2.0, 2), (2.0, 4.0, 1)]

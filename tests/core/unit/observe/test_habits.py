"""What is counted of the way a process uses its cluster."""

from __future__ import annotations

from shoal.observe.habits import LARGE, Facts, Habits, Repeat


def test_lone_waits_and_the_most_pending() -> None:
    habits = Habits()
    habits.waited(1, 0.5, alone=True)
    habits.waited(1, 0.25, alone=True)
    habits.waited(1, 9.0, alone=False)
    habits.waited(700, 9.0, alone=True)
    assert habits.take() == Facts(2, 0.75, 700)
    assert habits.take() == Facts()


def test_equal_large_arrays_are_the_same_argument() -> None:
    habits = Habits()
    one, other, small = bytes(LARGE), bytes(LARGE - 1) + b"x", bytes(LARGE - 1)
    for _ in range(3):
        habits.sent("f", [one, small])
    habits.sent("g", [one])
    habits.sent("f", [bytearray(one), memoryview(other)])
    assert habits.take().repeats == (Repeat("f", LARGE, 4),)


def test_an_array_that_changes_is_another_each_time() -> None:
    habits, array = Habits(), bytearray(10 * LARGE)
    for step in range(1, 5):
        array[:] = bytes([step]) * len(array)
        habits.sent("f", [array])
    assert habits.take().repeats == ()


def test_the_worst_comes_first() -> None:
    habits = Habits()
    for times, nbytes in ((5, LARGE), (3, 2 * LARGE), (2, 2 * LARGE + 1)):
        for _ in range(times):
            habits.sent("f", [bytes(nbytes)])
    assert [repeat.times for repeat in habits.take().repeats] == [3, 5, 2]

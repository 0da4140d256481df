"""Metrics of a process: counted on any thread, told as changes, bounded."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from shoal.errors import OptionError
from shoal.observe.metrics import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    MAX_SERIES,
    REGISTRY,
    Definition,
    Registry,
    check_definition,
)


def defined(kind: str = COUNTER, **changes: object) -> Definition:
    boundaries = (1.0, 2.0) if kind == HISTOGRAM else ()
    return Definition("things", kind, "Things.", (), boundaries)._replace(**changes)


def test_counters_and_histograms_tell_what_came_to_them_and_gauges_what_they_are() -> None:
    registry = Registry()
    count, _ = registry.define(defined()).series(())
    level, _ = registry.define(defined(GAUGE, name="level")).series(())
    sizes, _ = registry.define(defined(HISTOGRAM, name="sizes")).series(())
    count.add(2)
    count.add(0.5)
    level.put(3)
    level.put(1)
    for value in (0.5, 1.0, 1.5, 9.0):
        sizes.observe(value)
    assert registry.changed
    definitions, changes = registry.take()
    assert [definition[0] for definition in definitions] == ["things", "level", "sizes"]
    # A value that is a boundary belongs to the class below it.
    assert changes == (("things", (), (2.5,)), ("level", (), (1.0,)), ("sizes", (), (12.0, 2, 1, 1)))
    assert not registry.changed
    count.add(1)
    sizes.observe(1.5)
    assert registry.take() == ((), (("things", (), (1.0,)), ("sizes", (), (1.5, 0, 1, 0))))


def test_whoever_takes_the_changes_is_woken_once_for_each_time_and_told_everything_when_it_comes() -> None:
    registry = Registry()
    level, _ = registry.define(defined(GAUGE)).series(())
    level.put(7)
    registry.take()
    woken: list[int] = []
    wake = lambda: woken.append(1)  # noqa: E731
    registry.attach(wake)
    assert len(woken) == 1  # a gauge that nobody knows
    assert registry.take() == ((defined(GAUGE),), (("things", (), (7.0,)),))
    level.put(8)
    level.put(9)
    assert len(woken) == 2
    registry.detach(lambda: None)  # somebody else's
    registry.take()
    level.put(10)
    assert len(woken) == 3
    registry.detach(wake)
    registry.take()
    level.put(11)
    assert len(woken) == 3


def test_one_name_is_one_metric_and_cannot_be_two() -> None:
    registry = Registry()
    first = registry.define(defined())
    assert registry.define(defined(description="Other words.")) is first
    for other, difference in [
        (defined(GAUGE), "a counter, not a gauge"),
        (defined(tag_keys=("a",)), r"with the tags \[\], not \['a'\]"),
    ]:
        with pytest.raises(OptionError, match=rf"`things` exists in this process as {difference}"):
            registry.define(other)
    registry.define(defined(HISTOGRAM, name="sizes"))
    with pytest.raises(OptionError, match="with the boundaries"):
        registry.define(defined(HISTOGRAM, name="sizes", boundaries=(1.0,)))


def test_beyond_the_limit_nothing_is_counted_and_one_warning_names_the_metric() -> None:
    registry = Registry()
    metric = registry.define(defined(tag_keys=("id",)))
    for number in range(MAX_SERIES):
        metric.series((str(number),))[0].add(1)
    with pytest.warns(UserWarning, match="metric `things` has 1,000 combinations of tag values") as warned:
        for number in range(5):
            series, counts = metric.series((f"more {number}",))
            assert not counts
            series.add(1)
    assert len(warned) == 1
    assert len(registry.take()[1]) == MAX_SERIES


def test_threads_lose_nothing_while_changes_are_taken() -> None:
    registry = Registry()
    series, _ = registry.define(defined()).series(())
    total, taken, over = 50_000, 0.0, threading.Event()

    def count() -> None:
        for _ in range(total):
            series.add(1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    watcher = threading.Thread(target=lambda: [thread.join() for thread in threads] and over.set())
    watcher.start()
    while not over.is_set():
        taken += sum(numbers[0] for _, _, numbers in registry.take()[1])
    watcher.join()
    taken += sum(numbers[0] for _, _, numbers in registry.take()[1])
    assert taken == 4 * total


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "2nd"},
        {"name": "with space"},
        {"name": "größe"},
        {"name": "x" * 101},
        {"name": 7},
        {"name": "shoal_mine"},
        {"name": "things_total"},
        {"name": "things_bucket"},
        {"tag_keys": ("a", "a")},
        {"tag_keys": ("le",)},
        {"tag_keys": ("process",)},
        {"tag_keys": ("__a",)},
        {"tag_keys": ("a-b",)},
        {"tag_keys": tuple(f"k{number}" for number in range(17))},
        {"description": "x" * 501},
        {"description": None},
    ],
)
def test_what_cannot_be_a_metric(changes: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        check_definition(defined(**changes))


@pytest.mark.parametrize("boundaries", [(), (2.0, 1.0), (1.0, 1.0), (float("nan"),), (1.0, float("inf"))])
def test_what_cannot_be_boundaries(boundaries: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="rising numbers"):
        check_definition(defined(HISTOGRAM, boundaries=boundaries))


def _told_by_a_child(results: object) -> None:
    series, _ = REGISTRY.define(defined(name="told_after_a_fork")).series(())
    before = REGISTRY.take()[1]
    series.add(5)
    results.put((before, REGISTRY.take()[1]))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_tell_what_its_parent_has_counted() -> None:
    series, _ = REGISTRY.define(defined(name="told_after_a_fork")).series(())
    series.add(3)
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=_told_by_a_child, args=(results,))
    child.start()
    child.join(30)
    assert results.get() == ((), (("told_after_a_fork", (), (5.0,)),))
    assert ("told_after_a_fork", (), (3.0,)) in REGISTRY.take()[1]

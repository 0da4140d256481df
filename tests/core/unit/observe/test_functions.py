"""An owner's counts per function."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.functions import MAX_NEWS, FunctionStats, Tally


def end(tally: Tally, *, begun: bool = True, failed: bool = False, seconds: float = 0.0) -> None:
    (tally.fail if failed else tally.finish)(begun, seconds, "")


def test_one_task_from_submission_to_end() -> None:
    stats = FunctionStats()
    train = Tally("train", None, stats.note)
    train.submit()
    assert stats.take_changes() == (1, (("train", 0, 0, 0, 0.0),))
    train.send()
    assert stats.take_changes() == (0, (("train", 1, 0, 0, 0.0),))
    end(train, seconds=1.5)
    assert stats.take_changes() == (0, (("train", 0, 1, 0, 1.5),))
    assert stats.take_changes() == (0, ())


def test_a_task_that_comes_back_is_queued_again() -> None:
    stats = FunctionStats()
    train = Tally("train", None, stats.note)
    train.submit()
    train.send()
    train.take_back()
    assert stats.take_changes() == (1, (("train", 0, 0, 0, 0.0),))


def test_a_task_may_fail_before_it_begins() -> None:
    stats = FunctionStats()
    train = Tally("train", None, stats.note)
    train.submit()
    end(train, begun=False, failed=True)
    assert stats.take_changes() == (0, (("train", 0, 0, 1, 0.0),))


def test_only_what_changed_is_told_and_in_absolute_numbers() -> None:
    stats = FunctionStats()
    a, b = Tally("a", None, stats.note), Tally("b", None, stats.note)
    a.submit()
    b.submit()
    stats.take_changes()
    b.submit()
    b.submit()
    b.send()
    assert stats.take_changes() == (3, (("b", 1, 0, 0, 0.0),))


def test_tallies_of_one_name_are_added_up() -> None:
    stats = FunctionStats()
    first, second = Tally("train", None, stats.note), Tally("train", None, stats.note)
    for tally in (first, second):
        tally.submit()
        tally.send()
    end(first, seconds=1.0)
    assert stats.take_changes() == (0, (("train", 1, 1, 0, 1.0),))
    end(second, failed=True, seconds=2.0)
    assert stats.take_changes() == (0, (("train", 0, 1, 1, 3.0),))


def test_few_tallies_wait_to_be_added_up() -> None:
    stats = FunctionStats()
    for _ in range(3 * MAX_NEWS):
        tally = Tally("train", None, stats.note)
        tally.submit()
        end(tally, begun=False, seconds=1.0)
    assert len(stats._news) < MAX_NEWS
    assert stats.take_changes() == (0, (("train", 0, 3 * MAX_NEWS, 0, 3.0 * MAX_NEWS),))
    assert not stats.changed


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["finish", "fail", "drop", "return"])), max_size=40))
def test_counts_add_up_when_all_is_done(tasks: list[tuple[str, str]]) -> None:
    stats = FunctionStats()
    tallies = {name: Tally(name, None, stats.note) for name in "abc"}
    for name, _ in tasks:
        tallies[name].submit()
    for name, fate in tasks:
        tally = tallies[name]
        if fate == "return":
            tally.send()
            tally.take_back()
        if fate != "drop":
            tally.send()
        end(tally, begun=fate != "drop", failed=fate in ("fail", "drop"), seconds=1.0)
    queued, rows = stats.take_changes()
    assert queued == 0
    assert sum(finished + failed for _, _, finished, failed, _ in rows) == len(tasks)
    assert all(running == 0 and finished + failed == seconds for _, running, finished, failed, seconds in rows)

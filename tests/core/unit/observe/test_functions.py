"""An owner's counts per function."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.functions import FunctionStats


def test_one_task_from_submission_to_end() -> None:
    stats = FunctionStats()
    stats.queued("train")
    assert stats.take_changes() == (1, (("train", 0, 0, 0, 0.0),))
    stats.started("train")
    assert stats.take_changes() == (0, (("train", 1, 0, 0, 0.0),))
    stats.ended("train", begun=True, failed=False, seconds=1.5)
    assert stats.take_changes() == (0, (("train", 0, 1, 0, 1.5),))
    assert stats.take_changes() == (0, ())


def test_a_task_that_comes_back_is_queued_again() -> None:
    stats = FunctionStats()
    stats.queued("train")
    stats.started("train")
    stats.unstarted("train")
    assert stats.take_changes() == (1, (("train", 0, 0, 0, 0.0),))


def test_a_task_may_fail_before_it_begins() -> None:
    stats = FunctionStats()
    stats.queued("train")
    stats.ended("train", begun=False, failed=True, seconds=0.0)
    assert stats.take_changes() == (0, (("train", 0, 0, 1, 0.0),))


def test_only_what_changed_is_told_and_in_absolute_numbers() -> None:
    stats = FunctionStats()
    for name in ("a", "b"):
        stats.queued(name)
    stats.take_changes()
    for _ in range(2):
        stats.queued("b")
    stats.started("b")
    assert stats.take_changes() == (3, (("b", 1, 0, 0, 0.0),))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["finish", "fail", "drop", "return"])), max_size=40))
def test_counts_add_up_when_all_is_done(tasks: list[tuple[str, str]]) -> None:
    stats = FunctionStats()
    for name, _ in tasks:
        stats.queued(name)
    for name, fate in tasks:
        if fate == "return":
            stats.started(name)
            stats.unstarted(name)
        if fate != "drop":
            stats.started(name)
        stats.ended(name, begun=fate != "drop", failed=fate in ("fail", "drop"), seconds=1.0)
    queued, rows = stats.take_changes()
    assert queued == 0
    assert sum(finished + failed for _, _, finished, failed, _ in rows) == len(tasks)
    assert all(running == 0 and finished + failed == seconds for _, running, finished, failed, seconds in rows)

"""An owner's counts by cell and function: what has changed since it was last asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.functions import MAX_NEWS, CountsRow, FunctionStats, Tally


def row(name: str = "train", cell: str = "", **counts: float) -> CountsRow:
    order = ("queued", "running", "finished", "failed", "cancelled", "seconds")
    return (cell, name, *(counts.get(key, 0) for key in order))


def end(tally: Tally, *, begun: bool = True, failed: bool = False, seconds: float = 0.0) -> None:
    (tally.fail if failed else tally.finish)(begun, seconds, "")


def test_one_task_from_submission_to_end() -> None:
    stats = FunctionStats()
    train = Tally("train", None, stats.note)
    train.submit()
    assert stats.take_changes() == (row(queued=1),)
    train.send()
    assert stats.take_changes() == (row(queued=-1, running=1),)
    end(train, seconds=1.5)
    assert stats.take_changes() == (row(running=-1, finished=1, seconds=1.5),)
    assert stats.take_changes() == ()
    assert not stats.changed


def test_a_task_that_comes_back_is_queued_again() -> None:
    stats = FunctionStats()
    train = Tally("train", None, stats.note)
    train.submit()
    train.send()
    train.take_back()
    assert stats.take_changes() == (row(queued=1),)


def test_a_task_may_fail_before_it_begins() -> None:
    stats = FunctionStats()
    train = Tally("train", None, stats.note)
    train.submit()
    end(train, begun=False, failed=True)
    assert stats.take_changes() == (row(failed=1),)


def test_tallies_of_one_name_are_added_up_but_not_those_of_two_cells() -> None:
    stats = FunctionStats()
    first, second = Tally("train", None, stats.note), Tally("train", None, stats.note)
    other = Tally("train", None, stats.note, "In[3]#ab")
    for tally in (first, second, other):
        tally.submit()
        tally.send()
    end(first, seconds=1.0)
    assert stats.take_changes() == (row(running=1, finished=1, seconds=1.0), row(cell="In[3]#ab", running=1))


def test_few_tallies_wait_to_be_added_up() -> None:
    stats = FunctionStats()
    for _ in range(3 * MAX_NEWS):
        tally = Tally("train", None, stats.note)
        tally.submit()
        end(tally, begun=False, seconds=1.0)
    assert len(stats._news) < MAX_NEWS
    assert stats.take_changes() == (row(finished=3 * MAX_NEWS, seconds=3.0 * MAX_NEWS),)
    assert not stats.changed


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["finish", "fail", "drop", "return"])), max_size=40),
    st.integers(1, 5),
)
def test_counts_add_up_when_all_is_done(tasks: list[tuple[str, str]], often: int) -> None:
    stats = FunctionStats()
    tallies = {name: Tally(name, None, stats.note) for name in "abc"}
    totals = {name: [0.0] * 6 for name in "abc"}

    def take() -> None:
        for _, name, *counts in stats.take_changes():
            totals[name] = [before + change for before, change in zip(totals[name], counts, strict=True)]

    for name, _ in tasks:
        tallies[name].submit()
    for number, (name, fate) in enumerate(tasks):
        tally = tallies[name]
        if fate == "return":
            tally.send()
            tally.take_back()
        if fate != "drop":
            tally.send()
        if number % often == 0:
            take()
        end(tally, begun=fate != "drop", failed=fate in ("fail", "drop"), seconds=1.0)
    take()
    assert all(queued == running == 0 for queued, running, *_ in totals.values())
    assert sum(finished + failed for _, _, finished, failed, *_ in totals.values()) == len(tasks)
    assert all(finished + failed == seconds for _, _, finished, failed, _, seconds in totals.values())

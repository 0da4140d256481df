"""When the work of a cell was done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.functions import Tally
from shoal.observe.timeline import CANCELLED, FAILED, FINISHED, FIRST_WIDTH, MAX_SPANS, NUM_SLICES, Timeline


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_piece_of_work_fills_the_slices_that_it_took() -> None:
    clock = Clock()
    timeline = Timeline(clock)
    end = 2.5 * FIRST_WIDTH
    timeline.add("train", "executor-1", 1.5 * FIRST_WIDTH, clock.now + end, FINISHED)
    assert [slice_.busy for slice_ in timeline.slices()] == pytest.approx([0, FIRST_WIDTH, FIRST_WIDTH / 2], abs=1e-9)
    assert [slice_.ended for slice_ in timeline.slices()] == [0, 0, 1]
    assert timeline.spans == [(0, pytest.approx(FIRST_WIDTH), pytest.approx(end), "train", FINISHED)]


def test_executors_are_numbered_as_they_answer() -> None:
    timeline = Timeline(Clock())
    for executor in ("b", "a", "b"):
        timeline.add("f", executor, 0.01, 1_000.1, FINISHED)
    assert [span.lane for span in timeline.spans] == [0, 1, 0]


def test_work_that_never_began_has_an_end_but_no_time() -> None:
    timeline = Timeline(Clock())
    timeline.add("f", "", 0.0, 1_000.0, CANCELLED)
    assert timeline.slices() == [(0.0, 1, 1)]
    assert timeline.spans == []


work = st.tuples(
    st.floats(0, 3_000), st.floats(0, 500), st.sampled_from([FINISHED, FAILED, CANCELLED]), st.sampled_from(["", "a"])
)


@given(st.lists(work, max_size=30))
def test_nothing_is_lost_when_slices_widen(pieces: list[tuple[float, float, int, str]]) -> None:
    timeline = Timeline(Clock())
    for pause, seconds, outcome, executor in pieces:
        timeline.add("f", executor, seconds, timeline.last_end + pause, outcome)
    slices = timeline.slices()
    assert len(slices) <= NUM_SLICES
    assert sum(slice_.ended for slice_ in slices) == len(pieces)
    assert sum(slice_.unsuccessful for slice_ in slices) == sum(outcome != FINISHED for _, _, outcome, _ in pieces)
    spent = sum(span.end - span.start for span in timeline.spans)
    assert sum(slice_.busy for slice_ in slices) == pytest.approx(spent, abs=1e-6)


def test_short_work_is_counted_without_a_look_at_each() -> None:
    clock = Clock()
    timeline = Timeline(clock)
    tally = Tally("f", timeline, None)
    for _ in range(20 * MAX_SPANS):
        clock.now += 0.001
        tally.submit()
        tally.send()
        tally.finish(True, 0.001, "a")
    assert len(timeline.spans) == MAX_SPANS
    assert sum(slice_.ended for slice_ in timeline.slices()) == 20 * MAX_SPANS
    assert sum(slice_.busy for slice_ in timeline.slices()) == pytest.approx(20 * MAX_SPANS * 0.001)
    assert timeline.last_end == clock.now

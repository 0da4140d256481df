"""Charts of schedules: numbers only."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.train.parallel.schedules import Work, expected, measured

times = st.lists(st.floats(0.1, 3), min_size=3, max_size=3)


@given(st.sampled_from(["gpipe", "1f1b"]), st.integers(1, 6), times, times)
def test_no_pass_begins_before_what_it_needs_and_no_stage_does_two_at_once(schedule, num_batches, forward, backward):
    chart = expected(schedule, 3, num_batches, backward, forward)
    at = {(one.stage, one.kind, one.batch): one for one in chart.work}
    assert len(at) == 2 * 3 * num_batches
    for (stage, kind, batch), one in at.items():
        if kind == "F" and stage > 0:
            assert one.began >= at[stage - 1, "F", batch].ended - 1e-9
        if kind == "B":
            assert one.began >= at[(stage + 1, "B", batch) if stage < 2 else (2, "F", batch)].ended - 1e-9
    for stage in range(3):
        mine = sorted((one.began, one.ended) for one in chart.work if one.stage == stage)
        assert all(before[1] <= after[0] + 1e-9 for before, after in itertools.pairwise(mine))
    assert chart.mean("F") == pytest.approx(forward) and chart.mean("B") == pytest.approx(backward)


@given(st.sampled_from(["gpipe", "1f1b"]), times, times)
def test_a_chart_that_kept_to_its_schedule_is_what_is_expected_of_it(schedule, forward, backward):
    chart = expected(schedule, 3, 4, backward, forward)
    again = chart.expected(schedule)
    assert again.length == pytest.approx(chart.length) and again.bubble_ratio == pytest.approx(chart.bubble_ratio)


def test_the_picture_has_a_bar_for_each_pass():
    chart = measured([Work(0, "F", 0, 5, 6), Work(1, "F", 0, 6, 7), Work(1, "B", 0, 7, 9)], 2)
    shown = chart._repr_mimebundle_()
    assert shown["text/plain"].splitlines()[0] == "stage 0  " + "0" * 18 + "." * 54
    svg = shown["image/svg+xml"]
    assert svg.count("<title>") == 3 and "backward pass of micro-batch 0: 2" in svg and "bubbles 50%" in svg
    # The first pass is a quarter of the width, at the left.
    assert '<rect x="70.0" y="24" width="172.0" height="22" fill="#3b78c4">' in svg

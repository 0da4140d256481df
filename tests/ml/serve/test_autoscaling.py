"""How many replicas there should be, and why."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.serve.autoscaling import Autoscaler
from shoal_ml.serve.options import AutoscalingOptions


def options_of(**changes: float) -> AutoscalingOptions:
    given = {"min_replicas": 1, "max_replicas": 10, "upscale_delay_s": 3.0, "downscale_delay_s": 6.0} | changes
    return AutoscalingOptions(**{"look_back_period_s": 1.0, **given})  # type: ignore[arg-type]


def follow(scaler: Autoscaler, loads: list[float], current: int) -> list[int]:
    """Decide once a second; returns the numbers decided."""
    numbers = []
    for second, load in enumerate(loads):
        current = scaler.decide(float(second), current, load)
        numbers.append(current)
    return numbers


def test_more_are_started_once_more_have_been_wanted_for_the_delay():
    scaler = Autoscaler(options_of())
    assert follow(scaler, [8.0] * 5, 1) == [1, 1, 1, 4, 4]
    assert len(scaler.log) == 1
    assert "8.0 requests on average" in scaler.log[0].reason and "for 3 s" in scaler.log[0].reason
    assert (scaler.log[0].before, scaler.log[0].after) == (1, 4)


def test_a_break_begins_the_delay_anew():
    scaler = Autoscaler(options_of())
    assert follow(scaler, [8, 8, 2, 2, 8, 8, 8, 8, 8, 8], 1)[:7] == [1] * 7


def test_fewer_stay_once_fewer_have_been_wanted_for_the_delay():
    scaler = Autoscaler(options_of())
    assert follow(scaler, [2.0] * 9, 4) == [4] * 6 + [1] * 3


def test_to_zero_and_back_at_once():
    scaler = Autoscaler(options_of(min_replicas=0))
    numbers = follow(scaler, [0.0] * 9 + [3.0], 1)
    assert numbers == [1] * 6 + [0] * 3 + [2]
    assert scaler.log[-1].reason == "3 requests wait and there is no replica"


def test_new_bounds_hold_at_once():
    scaler = Autoscaler(options_of(min_replicas=3))
    assert scaler.decide(0.0, 1, 0.0) == 3
    assert scaler.log[-1].reason == "the bounds have changed"


def test_initial_number():
    assert Autoscaler(options_of()).initial() == 1
    assert Autoscaler(AutoscalingOptions(0, 5, 2)).initial() == 2


@given(st.lists(st.floats(0, 1_000), min_size=1, max_size=60), st.integers(0, 3), st.integers(3, 9))
def test_decisions_stay_within_bounds_and_every_change_is_in_the_log(loads, least, most):
    scaler = Autoscaler(options_of(min_replicas=least, max_replicas=most, upscale_delay_s=1.0, downscale_delay_s=2.0))
    current = scaler.initial()
    numbers = [current, *follow(scaler, loads, current)]
    assert all(least <= number <= most for number in numbers)
    changes = [(a, b) for a, b in itertools.pairwise(numbers) if a != b]
    assert [(row.before, row.after) for row in scaler.log] == changes[-50:]

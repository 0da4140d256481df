"""Options are checked where the user wrote them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import OptionError
from shoal.model.options import ACTOR_OPTIONS, TASK_OPTIONS, Options, is_number, with_changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_cpus": 2}, Options(num_cpus=2.0)),
        ({"num_cpus": 0}, Options(num_cpus=0.0)),
        ({"num_gpus": Fraction(1, 4)}, Options(num_gpus=0.25)),
        ({"num_cpus": np.float32(0.5)}, Options(num_cpus=0.5)),
        ({"memory": np.int64(1 << 30)}, Options(memory=1 << 30)),
        ({"resources": {"tpu": 1, "disk": 0}}, Options(resources=(("tpu", 1.0),))),
        ({"max_retries": 0, "name": "train", "cell": None}, Options(max_retries=0, name="train")),
        ({}, Options()),
    ],
)
def test_good_options_are_taken(changes: dict[str, Any], expected: Options) -> None:
    assert with_changes(Options(), changes, TASK_OPTIONS) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"num_cpus": -1},
        {"num_cpus": "2"},
        {"num_cpus": True},
        {"num_cpus": float("nan")},
        {"num_cpus": float("inf")},
        {"num_gpus": None},
        {"memory": 1.5},
        {"memory": -1},
        {"max_retries": 1.0},
        {"max_retries": False},
        {"name": 3},
        {"cell": 3},
        {"resources": ["tpu"]},
        {"resources": {1: 1}},
        {"resources": {"tpu": "one"}},
        {"resources": {"num_cpus": 1}},
    ],
)
def test_bad_values_are_refused_by_name(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(OptionError, match=name) as caught:
        with_changes(Options(), changes, TASK_OPTIONS)
    assert caught.value.__dict__["option"].startswith(name)


@pytest.mark.parametrize("name", ["num_cpus", "memory"])
def test_an_amount_beyond_all_measure_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        with_changes(Options(), {name: 10**400}, TASK_OPTIONS).asked()


def test_an_unknown_option_is_told_the_closest() -> None:
    with pytest.raises(OptionError, match="Did you mean `num_cpus`"):
        with_changes(Options(), {"num_cpu": 1}, TASK_OPTIONS)
    with pytest.raises(OptionError, match="Options are: cell, max_retries, "):
        with_changes(Options(), {"zzz": 1}, TASK_OPTIONS)


def test_actors_have_no_retries_of_tasks() -> None:
    assert {"max_retries"} == TASK_OPTIONS - ACTOR_OPTIONS
    with pytest.raises(OptionError, match="Unknown option `max_retries`"):
        with_changes(Options(), {"max_retries": 1}, ACTOR_OPTIONS)


def test_changes_leave_the_rest_and_the_original_alone() -> None:
    before = Options(num_cpus=2.0, name="train")
    assert with_changes(before, {"num_cpus": 3}, TASK_OPTIONS) == Options(num_cpus=3.0, name="train")
    assert before.num_cpus == 2.0


def test_everything_asked_for_is_one_vector() -> None:
    options = Options(num_cpus=2.0, num_gpus=0.5, memory=1000, resources=(("tpu", 1.0),))
    assert options.asked() == (("memory", 1000.0), ("num_cpus", 2.0), ("num_gpus", 0.5), ("tpu", 1.0))
    assert Options(num_cpus=0.0).asked() == ()


def test_truth_is_no_number() -> None:
    assert is_number(1) and is_number(0.5)
    assert not is_number(True) and not is_number("1") and not is_number(1j)


@given(
    st.dictionaries(st.sampled_from(sorted(TASK_OPTIONS)), st.one_of(st.none(), st.integers(), st.floats(), st.text()))
)
def test_options_are_taken_or_refused_and_nothing_else(changes: dict[str, Any]) -> None:
    try:
        options = with_changes(Options(), changes, TASK_OPTIONS)
    except OptionError:
        return
    assert all(amount > 0 or name in ("num_cpus", "num_gpus") for name, amount in options.asked())

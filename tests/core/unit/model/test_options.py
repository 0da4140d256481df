"""Options are checked where the user wrote them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import OptionError
from shoal.model.options import ActorOptions, TaskOptions, is_number, option_names, with_changes
from shoal.model.placement import ANYWHERE, Placement


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_cpus": 2}, TaskOptions(num_cpus=2.0)),
        ({"num_cpus": 0}, TaskOptions(num_cpus=0.0)),
        ({"num_gpus": Fraction(1, 4)}, TaskOptions(num_gpus=0.25)),
        ({"num_cpus": np.float32(0.5)}, TaskOptions(num_cpus=0.5)),
        ({"memory": np.int64(1 << 30)}, TaskOptions(memory=1 << 30)),
        ({"memory": 2e9}, TaskOptions(memory=2_000_000_000)),
        ({"resources": {"tpu": 1, "disk": 0}}, TaskOptions(resources=(("tpu", 1.0),))),
        ({"max_retries": 0, "name": "train", "cell": None}, TaskOptions(max_retries=0, name="train")),
        ({"num_returns": "streaming", "max_pending": 2}, TaskOptions(num_returns=-1, max_pending=2)),
        ({"num_returns": 0, "max_retries": -1}, TaskOptions(num_returns=0, max_retries=-1)),
        ({"timeout": 2, "priority": -3}, TaskOptions(timeout=2.0, priority=-3)),
        ({}, TaskOptions()),
    ],
)
def test_good_options_are_taken(changes: dict[str, Any], expected: TaskOptions) -> None:
    assert with_changes(TaskOptions(), changes) == expected


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
        {"num_returns": -1},
        {"num_returns": "all"},
        {"max_retries": -2},
        {"retry_exceptions": [ValueError, "TypeError"]},
        {"retry_exceptions": 1},
        {"scheduling_strategy": "PACKED"},
        {"label_selector": {"zone": 1}},
        {"priority": 0.5},
        {"timeout": 0},
        {"timeout": -1.0},
        {"max_pending": 0},
    ],
)
def test_bad_values_are_refused_by_name(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(OptionError, match=name) as caught:
        with_changes(TaskOptions(), changes)
    assert caught.value.__dict__["option"].startswith(name)


@pytest.mark.parametrize("name", ["num_cpus", "memory"])
def test_an_amount_beyond_all_measure_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        with_changes(TaskOptions(), {name: 10**400}).kind()


def test_an_unknown_option_is_told_the_closest() -> None:
    with pytest.raises(OptionError, match="Did you mean `num_cpus`"):
        with_changes(TaskOptions(), {"num_cpu": 1})
    with pytest.raises(OptionError, match="Options are: accelerator_type, cell, "):
        with_changes(TaskOptions(), {"zzz": 1})


def test_actors_have_no_retries_of_tasks() -> None:
    with pytest.raises(OptionError, match="Unknown option `max_retries`"):
        with_changes(ActorOptions(), {"max_retries": 1})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_restarts": -1, "max_task_retries": 2}, ActorOptions(max_restarts=-1, max_task_retries=2)),
        ({"concurrency_groups": {"io": 2}}, ActorOptions(concurrency_groups=(("io", 2),))),
        ({"lifetime": "detached", "on_redefine": "keep"}, ActorOptions(lifetime="detached", on_redefine="keep")),
        ({"lifetime": None, "namespace": "n"}, ActorOptions(namespace="n")),
    ],
)
def test_good_options_of_actors_are_taken(changes: dict[str, Any], expected: ActorOptions) -> None:
    assert with_changes(ActorOptions(), changes) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"max_restarts": -2},
        {"max_concurrency": 0},
        {"concurrency_groups": {"io": 0}},
        {"concurrency_groups": {"": 1}},
        {"concurrency_groups": ["io"]},
        {"lifetime": "forever"},
        {"on_redefine": "update"},
        {"get_if_exists": 1},
        {"max_pending_calls": 0},
    ],
)
def test_bad_values_of_actor_options_are_refused_by_name(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(OptionError, match=name):
        with_changes(ActorOptions(), changes)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("DEFAULT", ANYWHERE),
        ("SPREAD", Placement(spread=True)),
        (Placement(node="node-1"), Placement(node="node-1")),
    ],
)
def test_strategies_become_placements(value: Any, expected: Placement) -> None:
    assert with_changes(TaskOptions(), {"scheduling_strategy": value}).kind().placement == expected


def test_labels_and_accelerators_narrow_the_placement() -> None:
    options = with_changes(TaskOptions(), {"label_selector": {"zone": "b", "disk": "!hdd"}, "accelerator_type": "A100"})
    expected = (("accelerator_type", "A100"), ("disk", "!hdd"), ("zone", "b"))
    assert options.kind().placement == Placement(labels=expected)


def test_exception_types_may_come_in_any_collection() -> None:
    for value in (ValueError, [ValueError], {ValueError}):
        assert with_changes(TaskOptions(), {"retry_exceptions": value}).retry_exceptions == (ValueError,)


def test_changes_leave_the_rest_and_the_original_alone() -> None:
    before = TaskOptions(num_cpus=2.0, name="train")
    assert with_changes(before, {"num_cpus": 3}) == TaskOptions(num_cpus=3.0, name="train")
    assert before.num_cpus == 2.0


def test_everything_asked_for_is_one_vector() -> None:
    options = TaskOptions(num_cpus=2.0, num_gpus=0.5, memory=1000, resources=(("tpu", 1.0),))
    assert options.kind().resources == (("memory", 1000.0), ("num_cpus", 2.0), ("num_gpus", 0.5), ("tpu", 1.0))
    assert TaskOptions(num_cpus=0.0).kind().resources == ()


def test_truth_is_no_number() -> None:
    assert is_number(1) and is_number(0.5)
    assert not is_number(True) and not is_number("1") and not is_number(1j)


@given(
    st.dictionaries(
        st.sampled_from(sorted(option_names(TaskOptions))), st.one_of(st.none(), st.integers(), st.floats(), st.text())
    )
)
def test_options_are_taken_or_refused_and_nothing_else(changes: dict[str, Any]) -> None:
    try:
        options = with_changes(TaskOptions(), changes)
    except OptionError:
        return
    assert all(amount > 0 or name in ("num_cpus", "num_gpus") for name, amount in options.kind().resources)

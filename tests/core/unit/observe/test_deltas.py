"""Deltas of snapshots: what has changed, and nothing else."""

from __future__ import annotations

import copy
import json

from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.deltas import apply, diff

rows = st.builds(lambda key, x, y: {"id": key, "x": x, "y": y}, st.sampled_from("abcdef"), st.integers(0, 2), st.text())
tables = st.lists(rows, max_size=6, unique_by=lambda row: row["id"])
snapshots = st.builds(
    lambda time, tasks, nodes, actors: {"time": time, "tasks": tasks, "nodes": nodes, "actors": actors},
    st.integers(0, 3),
    st.dictionaries(st.sampled_from(["running", "queued"]), st.integers(0, 2)),
    tables,
    tables,
)


@given(snapshots, snapshots)
def test_what_differs_makes_the_one_of_the_other(old: dict, new: dict) -> None:
    before = copy.deepcopy((old, new))
    delta = json.loads(json.dumps(diff(old, new)))
    assert apply(old, delta) == new
    assert (old, new) == before, "neither is changed"


@given(snapshots)
def test_nothing_differs_from_itself(one: dict) -> None:
    assert diff(one, copy.deepcopy(one)) == {}


def test_a_row_that_changed_tells_its_key_and_what_changed() -> None:
    old = {"nodes": [{"id": "a", "cpus": 2, "load": 0.1}, {"id": "b", "cpus": 2, "load": 0.2}]}
    new = {"nodes": [{"id": "a", "cpus": 2, "load": 0.1}, {"id": "b", "cpus": 2, "load": 0.3}]}
    assert diff(old, new) == {"nodes": {"changed": [{"id": "b", "load": 0.3}]}}


def test_new_rows_come_whole_and_old_ones_go_by_name() -> None:
    old = {"nodes": [{"id": "a", "cpus": 1}]}
    new = {"nodes": [{"id": "b", "cpus": 2}]}
    assert diff(old, new) == {"nodes": {"changed": [{"id": "b", "cpus": 2}], "gone": ["a"]}}


def test_another_order_is_told() -> None:
    old, new = {"functions": [{"name": "f"}, {"name": "g"}]}, {"functions": [{"name": "g"}, {"name": "f"}]}
    assert diff(old, new) == {"functions": {"order": ["g", "f"]}}

"""What has changed from one snapshot to the next: small enough to be sent many times a second.

A snapshot (:mod:`shoal.observe.cluster_view`) is a dictionary of values, of dictionaries, and of *tables*: lists of
rows that each have a key of their own (:data:`KEYS`). A delta names what differs::

    {"time": 12.5,                                             # values and dictionaries: as they are now
     "nodes": {"changed": [{"id": "node-1", "cpu_ratio": 0.5}],  # of a table: rows with what changed in them,
               "gone": ["node-2"],                             # keys of rows that are no more,
               "order": ["node-3", "node-1"]}}                 # and the order, if it is not the one before

``apply(old, diff(old, new)) == new``. A new row is a changed row that has all of its fields. The order of the rows
before, without those gone and with new ones at the end, is the order after unless there is an ``order``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The tables of a snapshot, and the field of their rows that tells them apart.
KEYS = {
    "nodes": "id",
    "functions": "name",
    "cells": "id",
    "actors": "id",
    "groups": "id",
    "owners": "id",
    "waiting": "id",
    "events": "number",
    "history": "time",
}


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes *new* of *old*; empty if they are equal. Both have the same fields."""
    delta: dict[str, Any] = {}
    for name, value in new.items():
        before = old.get(name)
        if before == value:
            continue
        key = KEYS.get(name)
        delta[name] = value if key is None or before is None else _diff_table(before, value, key)
    return delta


def apply(old: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the snapshot after *delta*; *old* is left as it is."""
    new = dict(old)
    for name, change in delta.items():
        key = KEYS.get(name)
        new[name] = change if key is None or isinstance(change, list) else _apply_to_table(new[name], change, key)
    return new


def _diff_table(old: list[dict[str, Any]], new: list[dict[str, Any]], key: str) -> dict[str, Any]:
    before = {row[key]: row for row in old}
    after = {row[key] for row in new}
    changed = []
    for row in new:
        known = before.get(row[key])
        if known is None:
            changed.append(row)
        elif known != row:
            changed.append({key: row[key], **{name: value for name, value in row.items() if known.get(name) != value}})
    change: dict[str, Any] = {}
    if changed:
        change["changed"] = changed
    gone = [name for name in before if name not in after]
    if gone:
        change["gone"] = gone
    expected = [name for name in before if name in after] + [row[key] for row in new if row[key] not in before]
    order = [row[key] for row in new]
    if order != expected:
        change["order"] = order
    return change


def _apply_to_table(old: list[dict[str, Any]], change: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    rows = {row[key]: row for row in old}
    for name in change.get("gone", ()):
        rows.pop(name, None)
    for row in change.get("changed", ()):
        rows[row[key]] = {**rows.get(row[key], {}), **row}
    order = change.get("order")
    return list(rows.values()) if order is None else [rows[name] for name in order]

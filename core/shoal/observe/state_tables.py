"""The tables of ``shoal.state``: their columns, and their rows from a snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: What a column holds: text, whole numbers, other numbers, times (Unix seconds), True or False, anything.
TEXT, COUNT, NUMBER, TIME, FLAG, THING = "text", "count", "number", "time", "flag", "thing"
#: The types that they have in a dataframe.
DTYPES = {
    TEXT: "string",
    COUNT: "int64",
    NUMBER: "float64",
    TIME: "datetime64[us, UTC]",
    FLAG: "bool",
    THING: "object",
}

_COUNTS = {
    "queued": COUNT, "running": COUNT, "finished": COUNT, "failed": COUNT, "cancelled": COUNT, "seconds": NUMBER,
}  # fmt: skip
#: The columns of each table, and what they hold.
TABLES: dict[str, dict[str, str]] = {
    "tasks": {
        "task_id": TEXT, "kind": TEXT, "function": TEXT, "cell": TEXT, "state": TEXT, "owner": TEXT, "node": TEXT,
        "executor": TEXT, "submitted": TIME, "started": TIME, "ended": TIME, "seconds": NUMBER, "attempt": COUNT,
        "error": TEXT, "cell_id": TEXT,
    },
    "actors": {
        "id": TEXT, "name": TEXT, "class_name": TEXT, "state": TEXT, "node": TEXT, "owner": TEXT, "restarts": COUNT,
        "pending": COUNT,
    },
    "objects": {
        "object_id": TEXT, "nbytes": COUNT, "where": TEXT, "nodes": THING, "made_by": TEXT, "cell": TEXT,
        "owner": TEXT, "held_by": THING, "mapped": FLAG,
    },
    "nodes": {
        "id": TEXT, "host": TEXT, "state": TEXT, "cpus": NUMBER, "cpus_used": NUMBER, "cpu_ratio": NUMBER,
        "memory": COUNT, "memory_used": COUNT, "executors": COUNT, "store": COUNT, "store_used": COUNT,
        "spilled": COUNT, "received_per_second": NUMBER, "gpus": THING,
    },
    "leases": {
        "id": TEXT, "state": TEXT, "node": TEXT, "executor": TEXT, "owner": TEXT, "job": TEXT, "actor": TEXT,
        "asked": TEXT, "num_cpus": NUMBER, "num_gpus": NUMBER, "memory": COUNT, "priority": COUNT,
    },
    "placement_groups": {
        "id": TEXT, "strategy": TEXT, "state": TEXT, "owner": TEXT, "bundles": THING, "nodes": THING,
    },
    "jobs": {
        "id": TEXT, "driver": TEXT, "joined": TIME, "processes": COUNT, "cells": COUNT, "queued": COUNT,
        "running": COUNT, "finished": COUNT, "failed": COUNT, "cancelled": COUNT, "seconds": NUMBER,
    },
    "cells": {"cell": TEXT, "cell_id": TEXT, "owner": TEXT, "began": TIME, "changed": TIME, **_COUNTS},
    "functions": {"function": TEXT, **_COUNTS, "mean": NUMBER},
    "events": {"number": COUNT, "time": TIME, "kind": TEXT, "text": TEXT},
    "states": {"state": TEXT, "count": COUNT},
    "past": {
        "id": TEXT, "name": TEXT, "started": TIME, "ended": TIME, "tasks": COUNT, "in_order": FLAG, "path": TEXT,
    },
}  # fmt: skip

Row = dict[str, Any]


def node_rows(snapshot: Mapping[str, Any]) -> list[Row]:
    return _rows("nodes", snapshot["nodes"])


def actor_rows(snapshot: Mapping[str, Any]) -> list[Row]:
    return _rows("actors", snapshot["actors"])


def event_rows(snapshot: Mapping[str, Any]) -> list[Row]:
    return _rows("events", snapshot["events"])


def group_rows(snapshot: Mapping[str, Any]) -> list[Row]:
    rows = [
        {
            **group,
            "nodes": [bundle["node"] for bundle in group["bundles"]],
            "bundles": [bundle["resources"] for bundle in group["bundles"]],
        }
        for group in snapshot["groups"]
    ]
    return _rows("placement_groups", rows)


def cell_rows(snapshot: Mapping[str, Any]) -> list[Row]:
    return _rows("cells", [{**cell, "cell": cell["name"], "cell_id": cell["id"]} for cell in snapshot["cells"]])


def function_rows(snapshot: Mapping[str, Any]) -> list[Row]:
    rows = []
    for function in snapshot["functions"]:
        known = function["finished"] + function["failed"]
        mean = function["seconds"] / known if known else 0.0
        rows.append({**function, "function": function["name"], "mean": mean})
    return _rows("functions", rows)


def state_rows(snapshot: Mapping[str, Any]) -> list[Row]:
    """Return how many tasks and calls are in each state."""
    return [{"state": name, "count": int(count)} for name, count in snapshot["tasks"].items() if name != "seconds"]


def job_rows(snapshot: Mapping[str, Any]) -> list[Row]:
    """Return a row for each driver, with what its listed cells come to; work outside of cells is not in that."""
    rows = []
    for owner in snapshot["owners"]:
        if owner["is_driver"]:
            cells = [cell for cell in snapshot["cells"] if cell["owner"] == owner["id"]]
            processes = sum(other["job"] == owner["job"] for other in snapshot["owners"])
            sums = {name: sum(cell[name] for cell in cells) for name in _COUNTS}
            about = {"id": owner["job"], "driver": owner["id"], "joined": owner["joined"], "processes": processes}
            rows.append({**about, "cells": len(cells), **sums})
    return _rows("jobs", rows)


def lease_rows(rows: Sequence[Sequence[Any]]) -> list[Row]:
    """Return rows of what a controller answers to ``leases``."""
    found = []
    for lease_id, state, node, executor, owner, job, actor, asked, resources, priority in rows:
        amounts = dict(resources)
        about = {"id": lease_id, "state": state, "node": node, "executor": executor, "owner": owner, "job": job}
        numbers = {
            "num_cpus": amounts.get("num_cpus", 0.0),
            "num_gpus": amounts.get("num_gpus", 0.0),
            "memory": int(amounts.get("memory", 0)),
        }
        found.append({**about, "actor": actor, "asked": asked, **numbers, "priority": priority})
    return found


def object_rows(reports: Mapping[str, Mapping[str, Any]], limit: int) -> list[Row]:
    """Join what owners answer to ``memory``, by owner: each value once, as its own owner tells of it if it does."""
    own: list[Row] = []
    others: dict[str, Row] = {}
    for owner, report in reports.items():
        for use in report["objects"]:
            row = {**use, "nodes": list(use["nodes"]), "held_by": list(use["held_by"]), "cell": use["cell"] or ""}
            writer = use["segment"].partition(".")[0]
            if not use["owner"]:
                own.append({**row, "owner": owner})
            elif use["object_id"] or writer not in reports:
                others.setdefault(use["object_id"] or use["segment"], row)
    known = {row["object_id"] for row in own}
    rows = own + [row for name, row in others.items() if name not in known]
    rows.sort(key=lambda row: (-row["nbytes"], row["object_id"]))
    return _rows("objects", rows[:limit])


def columns_of(table: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return rows in columns, all of them also if there are no rows."""
    return {name: [row[name] for row in rows] for name in TABLES[table]}


def _rows(table: str, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [{name: row[name] for name in TABLES[table]} for row in rows]

"""The tables of ``shoal.state``: rows from snapshots and answers, each with all of its columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal.observe import state_tables as tables
from shoal.observe.cluster_view import ClusterView
from shoal.observe.executor_places import MAX_EXECUTORS, ExecutorPlaces


def use(nbytes: int, object_id: str = "", owner: str = "", segment: str = "", **more: Any) -> dict[str, Any]:
    return {
        "object_id": object_id, "nbytes": nbytes, "where": "memory", "nodes": ("n",), "made_by": "put", "cell": None,
        "owner": owner, "held_by": (), "mapped": False, "segment": segment, **more,
    }  # fmt: skip


def view() -> dict[str, Any]:
    made = ClusterView("cluster-1", "mine", "tcp://x", 1.0)
    made.node_joined("node-1", "host", {"num_cpus": 2.0, "memory": 100}, 2.0)
    made.owner_joined("driver-1", True, "job-1", 3.0)
    made.owner_joined("exec-1", False, "job-1", 4.0)
    made.owner_counts("driver-1", (("In[1]#aa", "f", 1, 2, 3, 1, 0, 8.0),), 5.0)
    made.owner_counts("exec-1", (("In[1]#aa", "g", 0, 0, 0, 0, 2, 0.0),), 6.0)
    made.actor_requested("actor-1", "ann", "Ann", "driver-1")
    group = {
        "id": "group-1", "strategy": "PACK", "state": "ready", "owner": "driver-1",
        "bundles": [{"resources": "num_cpus=1", "node": "node-1"}, {"resources": "num_cpus=2", "node": ""}],
    }  # fmt: skip
    return made.snapshot(7.0, {"node-1": {"num_cpus": 1.0}}, groups=[group])


@pytest.mark.parametrize(
    ("table", "make"),
    [
        ("nodes", tables.node_rows),
        ("actors", tables.actor_rows),
        ("events", tables.event_rows),
        ("placement_groups", tables.group_rows),
        ("cells", tables.cell_rows),
        ("functions", tables.function_rows),
        ("states", tables.state_rows),
        ("jobs", tables.job_rows),
    ],
)
def test_every_row_has_the_columns_of_its_table(table: str, make: Any) -> None:
    rows = make(view())
    assert rows and all(list(row) == list(tables.TABLES[table]) for row in rows)
    columns = tables.columns_of(table, rows)
    assert all(len(column) == len(rows) for column in columns.values())
    assert list(tables.columns_of(table, [])) == list(columns)


def test_what_the_rows_say() -> None:
    snapshot = view()
    (job,) = tables.job_rows(snapshot)
    assert (job["id"], job["driver"], job["processes"], job["cells"]) == ("job-1", "driver-1", 2, 1)
    assert (job["queued"], job["running"], job["finished"], job["failed"], job["cancelled"]) == (1, 2, 3, 1, 2)
    (busiest, _) = tables.function_rows(snapshot)
    assert (busiest["function"], busiest["mean"]) == ("f", 2.0)
    (cell,) = tables.cell_rows(snapshot)
    assert (cell["cell"], cell["cell_id"], cell["seconds"]) == ("In[1]", "In[1]#aa", 8.0)
    (group,) = tables.group_rows(snapshot)
    assert (group["bundles"], group["nodes"]) == (["num_cpus=1", "num_cpus=2"], ["node-1", ""])
    assert tables.state_rows(snapshot)[0] == {"state": "queued", "count": 1}


def test_leases_are_said_in_words_and_numbers() -> None:
    (row,) = tables.lease_rows(
        [("lease-1", "held", "n", "e", "d", "j", "ann", "num_cpus=2", (("memory", 5.0), ("num_cpus", 2.0)), 3)]
    )
    assert list(row) == list(tables.TABLES["leases"])
    assert (row["num_cpus"], row["num_gpus"], row["memory"], row["priority"]) == (2.0, 0.0, 5, 3)


def test_each_value_is_told_of_once_by_its_own_owner() -> None:
    reports = {
        "driver-1": {
            "objects": (
                use(10, "obj-1", segment="driver-1.obj-1"),
                use(20, "obj-2", "tls://there"),  # borrowed from exec-1
                use(20, "", "a task's process", "exec-1.obj-2"),
                use(30, "", "another", "exec-9.obj-9"),
                use(40, "obj-8", "tls://gone"),
            )
        },
        "exec-1": {
            "objects": (
                use(20, "obj-2", segment="exec-1.obj-2"),
                use(10, "obj-1", "tls://driver"),
                use(30, "", "another", "exec-9.obj-9"),
            )
        },
    }
    rows = tables.object_rows(reports, 10)
    assert [(row["nbytes"], row["object_id"], row["owner"]) for row in rows] == [
        (40, "obj-8", "tls://gone"), (30, "", "another"), (20, "obj-2", "exec-1"), (10, "obj-1", "driver-1"),
    ]  # fmt: skip
    assert list(rows[0]) == list(tables.TABLES["objects"]) and rows[0]["cell"] == ""
    assert len(tables.object_rows(reports, 2)) == 2


def test_executors_are_remembered_when_they_have_ended_but_not_for_ever() -> None:
    places = ExecutorPlaces()
    assert places.note("exec-0", "node-1") and not places.note("exec-0", "node-1")
    for number in range(1, MAX_EXECUTORS + 1):
        places.note(f"exec-{number}", "node-2")
    assert len(places.nodes()) == MAX_EXECUTORS and "exec-0" not in places.nodes()


def test_the_documentation_names_every_column() -> None:
    text = (Path(__file__).parents[4] / "docs" / "observing.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for table, columns in tables.TABLES.items():
        line = rows.get(f"{table}()")
        if table in ("states", "past"):
            continue
        assert line is not None, table
        for column in columns:
            assert f"`{column}`" in line or ("counts" in line and f"`{column}`" in text), (table, column)

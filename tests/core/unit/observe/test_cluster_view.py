"""The snapshot that card, panel and status share."""

from __future__ import annotations

import json
from typing import Any

from shoal.model.messages import NodeUsage
from shoal.observe.cluster_view import MAX_DEAD_ACTORS, MAX_FUNCTIONS, ClusterView


def make_view() -> ClusterView:
    return ClusterView("cluster-1", "bold-heron", "tls://127.0.0.1:4000", 1000.0)


def shot(view: ClusterView, **used: float) -> dict[str, Any]:
    return view.snapshot(2000.0, {"node-1": used})


def test_an_empty_cluster() -> None:
    assert shot(make_view()) == {
        "version": 1,
        "time": 2000.0,
        "cluster": {
            "id": "cluster-1",
            "name": "bold-heron",
            "address": "tls://127.0.0.1:4000",
            "started": 1000.0,
        },
        "nodes": [],
        "tasks": {"running": 0, "queued": 0, "finished": 0, "failed": 0},
        "functions": [],
        "actors": [],
        "drivers": 0,
    }


def test_nodes_come_report_and_go() -> None:
    view = make_view()
    view.node_joined("node-1", "127.0.0.1", {"num_cpus": 2.0, "memory": 1e9})
    view.node_usage("node-1", NodeUsage(0.4, 8_000, 3_000, 3))
    view.node_usage("node-9", NodeUsage(0.4, 8_000, 3_000, 3))
    assert shot(view, num_cpus=1.5)["nodes"] == [
        {
            "id": "node-1",
            "host": "127.0.0.1",
            "cpus": 2.0,
            "cpus_used": 1.5,
            "cpu_ratio": 0.4,
            "memory": 8_000,
            "memory_used": 3_000,
            "executors": 3,
        }
    ]
    assert shot(view, num_cpus=-1.0)["nodes"][0]["cpus_used"] == 0.0
    view.node_left("node-1")
    view.node_left("node-1")
    assert shot(view)["nodes"] == []


def test_a_node_without_cpus_is_a_node() -> None:
    view = make_view()
    view.node_joined("node-1", "127.0.0.1", {})
    (node,) = shot(view)["nodes"]
    assert (node["cpus"], node["memory"]) == (0.0, 0)


def test_counts_of_owners_are_added_up_and_stay_when_they_leave() -> None:
    view = make_view()
    view.owner_joined("driver-1", True)
    view.owner_joined("exec-1", False)
    view.owner_stats("driver-1", 5, (("train", 2, 10, 1, 20.0), ("load", 0, 1, 0, 0.5)))
    view.owner_stats("exec-1", 1, (("train", 1, 3, 0, 4.0),))
    view.owner_stats("exec-1", 1, (("train", 1, 4, 0, 5.0),))
    snapshot = shot(view)
    assert snapshot["tasks"] == {"running": 3, "queued": 6, "finished": 15, "failed": 1}
    assert snapshot["functions"] == [
        {"name": "train", "running": 3, "finished": 14, "failed": 1, "seconds": 25.0},
        {"name": "load", "running": 0, "finished": 1, "failed": 0, "seconds": 0.5},
    ]
    assert snapshot["drivers"] == 1
    view.owner_left("driver-1")
    view.owner_left("exec-1")
    snapshot = shot(view)
    assert snapshot["tasks"] == {"running": 0, "queued": 0, "finished": 15, "failed": 1}
    assert snapshot["drivers"] == 0
    view.owner_joined("driver-2", True)
    view.owner_stats("driver-2", 0, (("train", 0, 1, 0, 1.0),))
    assert shot(view)["functions"][0]["finished"] == 15


def test_the_busiest_functions_are_listed_and_all_are_counted() -> None:
    view = make_view()
    view.owner_joined("driver-1", True)
    rows = tuple((f"f{number}", 0, 1, 0, float(number)) for number in range(MAX_FUNCTIONS + 20))
    view.owner_stats("driver-1", 0, (*rows, ("busy", 1, 0, 0, 0.0)))
    snapshot = shot(view)
    assert len(snapshot["functions"]) == MAX_FUNCTIONS
    assert [row["name"] for row in snapshot["functions"][:2]] == ["busy", f"f{MAX_FUNCTIONS + 19}"]
    assert snapshot["tasks"]["finished"] == MAX_FUNCTIONS + 20


def test_actors_from_request_to_death() -> None:
    view = make_view()
    view.actor_requested("actor-1", "", "Predictor")
    expected = {"id": "actor-1", "name": "", "class_name": "Predictor", "state": "pending", "node": ""}
    assert shot(view)["actors"] == [expected]
    view.actor_changed("actor-1", "alive", "node-1")
    assert shot(view)["actors"] == [expected | {"state": "alive", "node": "node-1"}]
    view.actor_changed("actor-1", "dead", "")
    assert shot(view)["actors"] == [expected | {"state": "dead", "node": "node-1"}]


def test_only_the_newest_dead_actors_are_kept() -> None:
    view = make_view()
    view.actor_requested("actor-alive", "", "A")
    for number in range(MAX_DEAD_ACTORS + 5):
        view.actor_requested(f"actor-{number}", "", "A")
        view.actor_changed(f"actor-{number}", "dead", "")
    actors = [actor["id"] for actor in shot(view)["actors"]]
    assert actors == ["actor-alive", *(f"actor-{number}" for number in range(5, MAX_DEAD_ACTORS + 5))]


def test_a_snapshot_is_json_and_nobody_elses() -> None:
    view = make_view()
    view.node_joined("node-1", "127.0.0.1", {"num_cpus": 2.0})
    view.owner_joined("driver-1", True)
    view.owner_stats("driver-1", 1, (("train", 1, 1, 0, 0.123456789),))
    view.actor_requested("actor-1", "", "A")
    before = json.dumps(shot(view))
    changed = shot(view)
    changed["nodes"][0]["cpus"] = 99
    changed["actors"][0]["state"] = "?"
    changed["cluster"]["name"] = "?"
    assert json.dumps(shot(view)) == before

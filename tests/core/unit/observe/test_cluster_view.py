"""The snapshot that card, panel and status share."""

from __future__ import annotations

import json
from typing import Any

from shoal.model.messages import NodeUsage
from shoal.observe.cluster_view import MAX_DEAD_ACTORS, ClusterView
from shoal.observe.history import NUM_POINTS


def make_view() -> ClusterView:
    return ClusterView("cluster-1", "bold-heron", "tls://127.0.0.1:4000", 1000.0)


def shot(view: ClusterView, **used: float) -> dict[str, Any]:
    return view.snapshot(2000.0, {"node-1": used})


def test_an_empty_cluster() -> None:
    nothing = ("nodes", "functions", "cells", "actors", "groups", "owners", "waiting", "events", "history")
    assert shot(make_view()) == {
        "version": 2,
        "time": 2000.0,
        "cluster": {
            "id": "cluster-1",
            "name": "bold-heron",
            "address": "tls://127.0.0.1:4000",
            "started": 1000.0,
        },
        "tasks": {"queued": 0, "running": 0, "finished": 0, "failed": 0, "cancelled": 0, "seconds": 0.0},
        "records": 0,
        "drivers": 0,
        **{name: [] for name in nothing},
    }


def test_nodes_come_report_and_go() -> None:
    view = make_view()
    view.node_joined("node-1", "127.0.0.1", {"num_cpus": 2.0, "memory": 1e9}, 1.0)
    usage = NodeUsage(0.4, 8_000, 3_000, 3, 4_000, 500, 20, 7, (("A100", 0.5, 80, 40),), (), (("node-2", 9),))
    view.node_usage("node-1", usage)
    view.node_usage("node-9", usage)
    view.node_state("node-1", "draining")
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
            "store": 4_000,
            "store_used": 500,
            "spilled": 20,
            "received_per_second": 7,
            "gpus": [{"name": "A100", "ratio": 0.5, "memory": 80, "memory_used": 40}],
            "received_from": [["node-2", 9]],
            "state": "draining",
        }
    ]
    assert shot(view, num_cpus=-1.0)["nodes"][0]["cpus_used"] == 0.0
    view.node_left("node-1", 2.0)
    view.node_left("node-1", 2.0)
    assert shot(view)["nodes"] == []
    assert [event["text"].split()[-1] for event in shot(view)["events"]] == ["joined", "left"]


def test_a_node_without_cpus_is_a_node() -> None:
    view = make_view()
    view.node_joined("node-1", "127.0.0.1", {}, 1.0)
    (node,) = shot(view)["nodes"]
    assert (node["cpus"], node["memory"]) == (0.0, 0)


def test_owners_come_work_and_leave() -> None:
    view = make_view()
    view.owner_joined("driver-1", True, "job-1", 1.0)
    view.owner_joined("exec-1", False, "job-1", 2.0)
    view.owner_counts("driver-1", (("In[1]#a", "train", 5, 2, 10, 1, 0, 20.0),), 3.0)
    view.owner_counts("exec-1", (("In[1]#a", "load", 1, 0, 3, 0, 0, 4.0),), 3.0)
    snapshot = shot(view)
    assert snapshot["tasks"] == {
        "queued": 6, "running": 2, "finished": 13, "failed": 1, "cancelled": 0, "seconds": 24.0,
    }  # fmt: skip
    assert snapshot["cells"][0]["owner"] == "driver-1", "an executor's work belongs to its driver's cell"
    assert snapshot["drivers"] == 1
    assert [(owner["id"], owner["is_driver"], owner["queued"]) for owner in snapshot["owners"]] == [
        ("driver-1", True, 5),
        ("exec-1", False, 1),
    ]
    view.owner_left("driver-1", 4.0)
    view.owner_left("exec-1", 4.0)
    snapshot = shot(view)
    assert (snapshot["tasks"]["queued"], snapshot["tasks"]["finished"], snapshot["drivers"]) == (0, 13, 0)


def test_seconds_become_a_history() -> None:
    view = make_view()
    view.node_joined("node-1", "127.0.0.1", {"num_cpus": 2.0}, 0.0)
    view.node_usage("node-1", NodeUsage(0.5, 8_000, 3_000, 3, 4_000, 500, 0, 9))
    view.owner_joined("driver-1", True, "job-1", 0.0)
    view.tick(1.0)
    view.owner_counts("driver-1", (("", "train", 1, 2, 30, 0, 0, 1.0),), 2.0)
    view.tick(3.0)
    first, second = shot(view)["history"]
    assert (first["time"], first["tasks_per_second"]) == (1.0, 0.0)
    assert second == {
        "time": 3.0,
        "running": 2,
        "queued": 1,
        "tasks_per_second": 15.0,
        "cpu_ratio": 0.5,
        "memory_used": 3_000,
        "store_used": 500,
        "received_per_second": 9,
    }
    for second in range(2 * NUM_POINTS):
        view.tick(4.0 + second)
    assert len(shot(view)["history"]) == NUM_POINTS


def test_actors_from_request_to_death() -> None:
    view = make_view()
    view.actor_requested("actor-1", "", "Predictor")
    expected = {
        "id": "actor-1", "name": "", "class_name": "Predictor", "state": "pending", "node": "", "owner": "",
        "restarts": 0, "pending": 0,
    }  # fmt: skip
    assert shot(view)["actors"] == [expected]
    view.actor_changed("actor-1", "alive", "node-1", 1.0)
    assert shot(view)["actors"] == [expected | {"state": "alive", "node": "node-1"}]
    view.node_joined("node-1", "127.0.0.1", {}, 1.0)
    view.node_usage("node-1", NodeUsage(0.5, 1, 1, 1, pending_calls=(("actor-1", 3), ("actor-9", 1))))
    assert shot(view)["actors"][0]["pending"] == 3
    view.actor_changed("actor-1", "restarting", "", 2.0)
    view.actor_changed("actor-1", "dead", "", 3.0, "it was killed")
    assert shot(view)["actors"] == [expected | {"state": "dead", "node": "node-1", "restarts": 1}]
    assert "has ended: it was killed" in shot(view)["events"][-1]["text"]


def test_only_the_newest_dead_actors_are_kept() -> None:
    view = make_view()
    view.actor_requested("actor-alive", "", "A")
    for number in range(MAX_DEAD_ACTORS + 5):
        view.actor_requested(f"actor-{number}", "", "A")
        view.actor_changed(f"actor-{number}", "dead", "", 1.0)
    actors = [actor["id"] for actor in shot(view)["actors"]]
    assert actors == ["actor-alive", *(f"actor-{number}" for number in range(5, MAX_DEAD_ACTORS + 5))]


def test_a_snapshot_is_json_and_nobody_elses() -> None:
    view = make_view()
    view.node_joined("node-1", "127.0.0.1", {"num_cpus": 2.0}, 1.0)
    view.owner_joined("driver-1", True, "job-1", 1.0)
    view.owner_counts("driver-1", (("In[1]", "train", 1, 1, 0, 0, 0, 0.123456789),), 1.0)
    view.actor_requested("actor-1", "", "A")
    before = json.dumps(shot(view))
    changed = shot(view)
    changed["nodes"][0]["cpus"] = 99
    changed["actors"][0]["state"] = "?"
    changed["cluster"]["name"] = "?"
    assert json.dumps(shot(view)) == before

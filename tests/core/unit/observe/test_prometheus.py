"""The numbers as Prometheus reads them, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from shoal.model.messages import NodeUsage
from shoal.observe.cluster_view import ClusterView
from shoal.observe.duration_metric import DURATIONS, duration_changes
from shoal.observe.durations import Durations
from shoal.observe.metric_book import MetricBook
from shoal.observe.metrics import COUNTER, GAUGE, HISTOGRAM
from shoal.observe.prometheus import BUILT_IN, exposition

DOCS = Path(__file__).parents[4] / "docs" / "metrics.md"


def snapshot() -> dict[str, Any]:
    view = ClusterView("cluster-1", 'bold "heron"\n', "tls://127.0.0.1:4000", 1000.0)
    for number in (1, 2):
        view.node_joined(f"node-{number}", f"10.0.0.{number}", {"num_cpus": 4.0}, 1.0)
    usage = NodeUsage(0.5, 800, 300, 3, 400, 50, 20, 7, (("A100", 0.5, 80, 40),), (), (("node-2", 123),))
    view.node_usage("node-1", usage)
    view.owner_joined("driver-1", True, "job-1", 1.0)
    view.owner_counts("driver-1", (("", "train", 2, 1, 5, 1, 0, 2.5),), 2.0)
    view.actor_requested("actor-1", "", "Model", "driver-1")
    view.actor_changed("actor-1", "alive", "node-1", 2.0)
    return view.snapshot(3.0, {"node-1": {"num_cpus": 1.0}})


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and the values of its labels, sorted by label."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_snapshot_becomes_metrics() -> None:
    found = samples(exposition(snapshot(), ()))
    assert found["shoal_tasks", "queued"] == 2
    assert found["shoal_tasks_ended_total", "failed"] == 1
    assert found["shoal_function_tasks", "train", "running"] == 1
    assert found["shoal_function_tasks_ended_total", "train", "finished"] == 5
    assert found["shoal_function_seconds_total", "train"] == 2.5
    assert found["shoal_actors", "alive"] == 1
    assert found["shoal_nodes", "alive"] == 2
    assert found["shoal_node_cpus_used", "10.0.0.1", "node-1"] == 1
    assert found["shoal_node_memory_used_bytes", "10.0.0.1", "node-1"] == 300
    assert found["shoal_node_spilled_bytes", "10.0.0.1", "node-1"] == 20
    assert found["shoal_node_received_bytes_total", "10.0.0.1", "node-1", "node-2"] == 123
    assert found["shoal_node_gpu_memory_used_bytes", "0 A100", "10.0.0.1", "node-1"] == 40
    assert found["shoal_cluster_start_time_seconds", "cluster-1", 'bold "heron"\n'] == 1000.0


def test_metrics_of_user_code_and_durations() -> None:
    book = MetricBook()
    durations = Durations()
    for seconds in (0.0001, 0.3, 0.3, 10_000.0):
        durations.add(seconds)
    definitions = (
        ("read", COUNTER, "Rows\nread.", ("table",), ()),
        ("level", GAUGE, "", (), ()),
        ("sizes", HISTOGRAM, "", (), (1.0, 2.5)),
        DURATIONS,
    )
    changes = (
        ("read", ('a"b\\\n\udcff',), (3.0,)),
        ("level", (), (float("nan"),)),
        ("sizes", (), (12.0, 2, 1, 1)),
        *duration_changes({"train": (durations, 10_000.6001)}),
    )
    for job in ("job-1", "job-2"):
        book.add("exec-1", job, definitions, changes)
    text = exposition(snapshot(), book.rows())
    found = samples(text)
    assert found["read_total", "job-1", 'a"b\\\n?'] == 3
    assert found["level", "job-1", "exec-1"] != found["level", "job-1", "exec-1"]
    assert [found["sizes_bucket", "job-1", le] for le in ("1.0", "2.5", "+Inf")] == [2, 3, 4]
    assert (found["sizes_sum", "job-1"], found["sizes_count", "job-1"]) == (12, 4)
    # Functions are those of the cluster: their durations are added up over jobs.
    assert found["shoal_task_duration_seconds_count", "train"] == 8
    assert found["shoal_task_duration_seconds_bucket", "train", "0.25"] == 2
    assert found["shoal_task_duration_seconds_bucket", "train", "1.0"] == 6
    assert found["shoal_task_duration_seconds_bucket", "train", "+Inf"] == 8
    # What comes through the middle, as the controller sends it: lists instead of tuples.
    as_lists = [[list(definition), [list(row) for row in rows]] for definition, rows in book.rows()]
    assert samples(exposition(snapshot(), as_lists)).keys() == found.keys()


def test_each_built_in_metric_is_told_and_in_the_docs() -> None:
    text = exposition(snapshot(), ())
    told = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert told == [(built_in.shown_name, built_in.kind) for built_in in BUILT_IN]
    rows = [
        f"| `{built_in.shown_name}` | {built_in.kind} | {', '.join(f'`{label}`' for label in built_in.labels)} "
        f"| {built_in.meaning} |"
        for built_in in BUILT_IN
    ]
    listed = [line for line in DOCS.read_text().splitlines() if line.startswith("| `shoal_")]
    assert listed == rows

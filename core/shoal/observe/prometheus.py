"""The cluster's numbers in the text format of Prometheus: what is built in, and the metrics of user code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.observe.duration_metric import DURATIONS
from shoal.observe.metric_book import cumulate
from shoal.observe.metrics import COUNTER, GAUGE, HISTOGRAM, Definition

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: What :func:`exposition` returns, for HTTP.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class BuiltIn(NamedTuple):
    """A metric of the cluster itself. A counter's ``name`` gets ``_total`` at its end."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def shown_name(self) -> str:
        return self.name + "_total" * (self.kind == COUNTER)


#: All there are, in the order in which they are told.
BUILT_IN = (
    BuiltIn("shoal_cluster_start_time_seconds", GAUGE, ("id", "name"), "When the cluster started, in Unix seconds."),
    BuiltIn("shoal_drivers", GAUGE, (), "Drivers that use the cluster."),
    BuiltIn("shoal_tasks", GAUGE, ("state",), "Tasks and calls that are `queued` (not sent yet) or `running`."),
    BuiltIn(
        "shoal_tasks_ended", COUNTER, ("outcome",), "Tasks and calls that `finished`, `failed` or were `cancelled`."
    ),
    BuiltIn("shoal_function_tasks", GAUGE, ("function", "state"), "Queued or running, of the 100 busiest functions."),
    BuiltIn("shoal_function_tasks_ended", COUNTER, ("function", "outcome"), "Work of these functions that has ended."),
    BuiltIn("shoal_function_seconds", COUNTER, ("function",), "Time in user code of these functions."),
    BuiltIn(DURATIONS.name, HISTOGRAM, DURATIONS.tag_keys, DURATIONS.description),
    BuiltIn("shoal_waiting", GAUGE, (), "Tasks and actors that wait for a place, of those that have waited longest."),
    BuiltIn("shoal_actors", GAUGE, ("state",), "Actors that are `pending`, `alive` or `restarting`."),
    BuiltIn("shoal_actor_pending_calls", GAUGE, (), "Calls that wait or run in the processes of actors."),
    BuiltIn("shoal_placement_groups", GAUGE, ("state",), "Placement groups that are `pending` or `ready`."),
    BuiltIn("shoal_nodes", GAUGE, ("state",), "Nodes that are `alive`, `draining` or `suspected`."),
    BuiltIn("shoal_node_cpus", GAUGE, ("node", "host"), "CPUs of a node."),
    BuiltIn("shoal_node_cpus_used", GAUGE, ("node", "host"), "CPUs that leases hold."),
    BuiltIn("shoal_node_cpu_ratio", GAUGE, ("node", "host"), "How busy the CPUs are, 0 to 1."),
    BuiltIn("shoal_node_memory_bytes", GAUGE, ("node", "host"), "Memory of a node."),
    BuiltIn("shoal_node_memory_used_bytes", GAUGE, ("node", "host"), "Memory in use."),
    BuiltIn("shoal_node_executors", GAUGE, ("node", "host"), "Executors, those that wait for work included."),
    BuiltIn("shoal_node_store_bytes", GAUGE, ("node", "host"), "The most that the object store may hold in memory."),
    BuiltIn("shoal_node_store_used_bytes", GAUGE, ("node", "host"), "What it holds in memory."),
    BuiltIn("shoal_node_spilled_bytes", GAUGE, ("node", "host"), "What it has put on disk."),
    BuiltIn(
        "shoal_node_received_bytes", COUNTER, ("node", "host", "source"), "Copies of values that came from other nodes."
    ),
    BuiltIn("shoal_node_gpu_ratio", GAUGE, ("node", "host", "gpu"), "How busy a GPU is, 0 to 1."),
    BuiltIn("shoal_node_gpu_memory_bytes", GAUGE, ("node", "host", "gpu"), "Memory of a GPU."),
    BuiltIn("shoal_node_gpu_memory_used_bytes", GAUGE, ("node", "host", "gpu"), "Memory of a GPU in use."),
)  # fmt: skip

#: What is told of each node, by the name of the metric without its beginning and its field in the snapshot.
_NODE_FIELDS = {
    "cpus": "cpus",
    "cpus_used": "cpus_used",
    "cpu_ratio": "cpu_ratio",
    "memory_bytes": "memory",
    "memory_used_bytes": "memory_used",
    "executors": "executors",
    "store_bytes": "store",
    "store_used_bytes": "store_used",
    "spilled_bytes": "spilled",
}
_OUTCOMES = ("finished", "failed", "cancelled")


def exposition(snapshot: Mapping[str, Any], user_metrics: Iterable[Any]) -> str:
    """Return everything as Prometheus's text format, version 0.0.4; serve it as :data:`CONTENT_TYPE`.

    Parameters
    ----------
    snapshot
        See :mod:`shoal.observe.cluster_view`.
    user_metrics
        What the controller answers when it is asked for ``metrics``
        (:meth:`shoal.observe.metric_book.MetricBook.rows`).
    """
    # Imported here because it takes longer than `import shoal` may.
    from prometheus_client.exposition import generate_latest

    samples: dict[str, list[tuple[tuple[str, ...], float]]] = {built_in.name: [] for built_in in BUILT_IN}
    _add_work(samples, snapshot)
    for node in snapshot["nodes"]:
        _add_node(samples, node)
    user = [(Definition(*definition), series) for definition, series in user_metrics]
    durations = [series for definition, series in user if definition.name == DURATIONS.name]
    families = []
    for built_in in BUILT_IN:
        if built_in.name == DURATIONS.name:
            families.append(_durations(durations[0] if durations else ()))
        else:
            family = _family(built_in.kind, built_in.name, built_in.meaning, built_in.labels)
            for values, number in samples[built_in.name]:
                family.add_metric(_texts(values), number)
            families.append(family)
    families += [_user_family(definition, series) for definition, series in user if definition.name != DURATIONS.name]
    return generate_latest(_Collected(families)).decode()


class _Collected:
    """A registry of Prometheus that holds what it is given."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _add_work(samples: dict[str, list[tuple[tuple[str, ...], float]]], snapshot: Mapping[str, Any]) -> None:
    cluster = snapshot["cluster"]
    samples["shoal_cluster_start_time_seconds"].append(((cluster["id"], cluster["name"]), cluster["started"]))
    samples["shoal_drivers"].append(((), snapshot["drivers"]))
    for row, name, labels in [
        (snapshot["tasks"], "shoal_tasks", ()),
        *((row, "shoal_function_tasks", (row["name"],)) for row in snapshot["functions"]),
    ]:
        for state in ("queued", "running"):
            samples[name].append(((*labels, state), row[state]))
        for outcome in _OUTCOMES:
            samples[f"{name}_ended"].append(((*labels, outcome), row[outcome]))
    for row in snapshot["functions"]:
        samples["shoal_function_seconds"].append(((row["name"],), row["seconds"]))
    samples["shoal_waiting"].append(((), sum(row["count"] for row in snapshot["waiting"])))
    for table, states in (
        ("actors", ("pending", "alive", "restarting")),
        ("groups", ("pending", "ready")),
        ("nodes", ("alive", "draining", "suspected")),
    ):
        name = "shoal_placement_groups" if table == "groups" else f"shoal_{table}"
        for state in states:
            samples[name].append(((state,), sum(row["state"] == state for row in snapshot[table])))
    samples["shoal_actor_pending_calls"].append(((), sum(row["pending"] for row in snapshot["actors"])))


def _add_node(samples: dict[str, list[tuple[tuple[str, ...], float]]], node: Mapping[str, Any]) -> None:
    labels = (node["id"], node["host"])
    for name, field in _NODE_FIELDS.items():
        samples[f"shoal_node_{name}"].append((labels, node[field]))
    for source, nbytes in node.get("received_from", ()):
        samples["shoal_node_received_bytes"].append(((*labels, source), nbytes))
    for number, gpu in enumerate(node["gpus"]):
        gpu_labels = (*labels, f"{number} {gpu['name']}")
        samples["shoal_node_gpu_ratio"].append((gpu_labels, gpu["ratio"]))
        samples["shoal_node_gpu_memory_bytes"].append((gpu_labels, gpu["memory"]))
        samples["shoal_node_gpu_memory_used_bytes"].append((gpu_labels, gpu["memory_used"]))


def _durations(series: Iterable[Any]) -> Any:
    """Return the histogram of durations, added up over jobs: its functions are those of the cluster."""
    family = _family(HISTOGRAM, DURATIONS.name, DURATIONS.description, DURATIONS.tag_keys)
    sums: dict[tuple[str, ...], list[float]] = {}
    for _, _, tag_values, numbers in series:
        before = sums.get(tuple(tag_values), [0.0] * len(numbers))
        sums[tuple(tag_values)] = [old + new for old, new in zip(before, numbers, strict=True)]
    for tag_values, numbers in sums.items():
        _add_histogram(family, tag_values, DURATIONS.boundaries, numbers)
    return family


def _user_family(definition: Definition, series: Iterable[Any]) -> Any:
    labels = (*definition.tag_keys, "job_id", *(["process"] * (definition.kind == GAUGE)))
    family = _family(definition.kind, definition.name, definition.description, labels)
    for job, process, tag_values, numbers in series:
        values = (*tag_values, job, *([process] * (definition.kind == GAUGE)))
        if definition.kind == HISTOGRAM:
            _add_histogram(family, values, definition.boundaries, numbers)
        else:
            family.add_metric(_texts(values), numbers[0])
    return family


def _add_histogram(family: Any, values: Iterable[str], boundaries: Iterable[float], numbers: Any) -> None:
    buckets = cumulate(boundaries, numbers[1:])
    rows = [("+Inf" if boundary == inf else repr(boundary), count) for boundary, count in buckets.items()]
    family.add_metric(_texts(values), buckets=rows, sum_value=numbers[0])


def _texts(values: Iterable[str]) -> list[str]:
    """Return labels that can be encoded: names may be made of a file's, which may be anything."""
    return [value.encode(errors="replace").decode() for value in values]


def _family(kind: str, name: str, description: str, labels: Iterable[str]) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    families = {COUNTER: CounterMetricFamily, GAUGE: GaugeMetricFamily, HISTOGRAM: HistogramMetricFamily}
    return families[kind](name, *_texts([description or name]), labels=tuple(labels))


__all__ = ["BUILT_IN", "CONTENT_TYPE", "BuiltIn", "exposition"]

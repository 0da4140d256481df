"""The cluster as it is told to people: one JSON model for the card, the panel and ``%remote status``.

Version 1::

    {"version": 1, "time": <unix s>,
     "cluster": {"id", "name", "address", "started"},
     "nodes": [{"id", "host", "cpus", "cpus_used", "cpu_ratio", "memory", "memory_used", "executors"}],
     "tasks": {"running", "queued", "finished", "failed"},
     "functions": [{"name", "running", "finished", "failed", "seconds"}],
     "actors": [{"id", "name", "class_name", "state", "node"}],
     "drivers": <count>}

Memory is in bytes, ratios are in 0-1, ``cpus_used`` is what leases hold. Counts of finished work stay when their
owner leaves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from shoal.model.messages import NodeUsage

VERSION = 1
#: Functions listed at most: the busiest.
MAX_FUNCTIONS = 100
#: Dead actors listed at most: the newest.
MAX_DEAD_ACTORS = 20


@dataclasses.dataclass(slots=True)
class _Owner:
    is_driver: bool
    queued: int = 0
    functions: dict[str, tuple[int, int, int, float]] = dataclasses.field(default_factory=dict)


class ClusterView:
    """Collects what owners and agents report."""

    def __init__(self, cluster_id: str, name: str, address: str, started: float) -> None:
        self.name = name
        self._cluster = {"id": cluster_id, "name": name, "address": address, "started": started}
        self._nodes: dict[str, dict[str, Any]] = {}
        self._owners: dict[str, _Owner] = {}
        #: Finished, failed and seconds by function, of owners that have left.
        self._past: dict[str, tuple[int, int, float]] = {}
        self._actors: dict[str, dict[str, str]] = {}
        self._dead_actors: list[str] = []

    def node_joined(self, node_id: str, host: str, total: Mapping[str, float]) -> None:
        self._nodes[node_id] = {
            "id": node_id,
            "host": host,
            "cpus": total.get("num_cpus", 0.0),
            "cpus_used": 0.0,
            "cpu_ratio": 0.0,
            "memory": int(total.get("memory", 0)),
            "memory_used": 0,
            "executors": 0,
        }

    def node_left(self, node_id: str) -> None:
        self._nodes.pop(node_id, None)

    def node_usage(self, node_id: str, usage: NodeUsage) -> None:
        node = self._nodes.get(node_id)
        if node is not None:
            node |= {"cpu_ratio": usage.cpu_ratio, "memory": usage.memory, "memory_used": usage.memory_used}
            node["executors"] = usage.executors

    def owner_joined(self, owner_id: str, is_driver: bool) -> None:
        self._owners[owner_id] = _Owner(is_driver)

    def owner_stats(self, owner_id: str, queued: int, functions: tuple[tuple[str, int, int, int, float], ...]) -> None:
        owner = self._owners[owner_id]
        owner.queued = queued
        for name, running, finished, failed, seconds in functions:
            owner.functions[name] = (running, finished, failed, seconds)

    def owner_left(self, owner_id: str) -> None:
        for name, (_, finished, failed, seconds) in self._owners.pop(owner_id).functions.items():
            before = self._past.get(name, (0, 0, 0.0))
            self._past[name] = (before[0] + finished, before[1] + failed, before[2] + seconds)

    def actor_requested(self, actor_id: str, name: str, class_name: str) -> None:
        self._actors[actor_id] = {
            "id": actor_id,
            "name": name,
            "class_name": class_name,
            "state": "pending",
            "node": "",
        }

    def actor_changed(self, actor_id: str, state: str, node_id: str) -> None:
        """An actor is ``alive`` on a node, ``restarting``, or ``dead``."""
        self._actors[actor_id] |= {"state": state, "node": node_id or self._actors[actor_id]["node"]}
        if state == "dead":
            self._dead_actors.append(actor_id)
            while len(self._dead_actors) > MAX_DEAD_ACTORS:
                del self._actors[self._dead_actors.pop(0)]

    def snapshot(self, now: float, used: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
        """Return the model; *used* is what leases hold, by node and resource."""
        functions: dict[str, list[float]] = {
            name: [0, finished, failed, seconds] for name, (finished, failed, seconds) in self._past.items()
        }
        for owner in self._owners.values():
            for name, counts in owner.functions.items():
                row = functions.setdefault(name, [0, 0, 0, 0.0])
                for column, count in enumerate(counts):
                    row[column] += count
        rows = sorted(functions.items(), key=lambda item: (-item[1][0], -item[1][3]))
        return {
            "version": VERSION,
            "time": now,
            "cluster": dict(self._cluster),
            "nodes": [
                {**node, "cpus_used": max(0.0, used.get(node_id, {}).get("num_cpus", 0.0))}
                for node_id, node in self._nodes.items()
            ],
            "tasks": {
                "running": int(sum(row[0] for _, row in rows)),
                "queued": sum(owner.queued for owner in self._owners.values()),
                "finished": int(sum(row[1] for _, row in rows)),
                "failed": int(sum(row[2] for _, row in rows)),
            },
            "functions": [
                {
                    "name": name,
                    "running": int(row[0]),
                    "finished": int(row[1]),
                    "failed": int(row[2]),
                    "seconds": round(row[3], 6),
                }
                for name, row in rows[:MAX_FUNCTIONS]
            ],
            "actors": [dict(actor) for actor in self._actors.values()],
            "drivers": sum(owner.is_driver for owner in self._owners.values()),
        }

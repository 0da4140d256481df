"""The cluster as it is told to people: one JSON model for the card, the panel, ``%remote status`` and pages.

Version 2::

    {"version": 2, "time": <unix s>,
     "cluster": {"id", "name", "address", "started"},
     "tasks": {"queued", "running", "finished", "failed", "cancelled", "seconds"},
     "nodes": [{"id", "host", "cpus", "cpus_used", "cpu_ratio", "memory", "memory_used", "executors",
                "store", "store_used", "spilled", "received_per_second", "gpus": [{"name", "ratio", "memory",
                "memory_used"}], "received_from": [[<node>, <bytes in all>]], "state"}],
     "functions": [{"name", *<as of tasks>}],
     "cells": [{"id", "name", "owner", "began", "changed", *<as of tasks>, "functions": [...]}],
     "actors": [{"id", "name", "class_name", "state", "node", "owner", "restarts", "pending"}],
     "groups": [{"id", "strategy", "state", "bundles": [{"resources", "node"}]}],
     "owners": [{"id", "is_driver", "job", "joined", "queued"}],
     "waiting": [{"id", "owner", "what", "count", "reason"}],
     "events": [{"number", "time", "kind", "text"}],
     "history": [{"time", "running", "queued", "tasks_per_second", "cpu_ratio", "memory_used", "store_used",
                  "received_per_second"}],
     "records": <how many tasks and calls have been recorded>,
     "drivers": <count>}

What Dask tells of a cluster without shoal has the same shape and ``"without_shoal": true`` (``launch/dask_view.py``);
its nodes' ``executors`` are None.

Memory is in bytes, ratios are in 0-1, ``cpus_used`` is what leases hold, ``seconds`` is time in user code. Counts of
finished work stay when their owner leaves. What changes from one to the next: :mod:`shoal.observe.deltas`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from shoal.model.messages import NodeUsage
from shoal.observe.functions import CountsRow
from shoal.observe.history import History
from shoal.observe.work_counts import WorkCounts

VERSION = 2
#: Dead actors and events listed at most: the newest.
MAX_DEAD_ACTORS, MAX_EVENTS = 20, 200


class ActorRow(NamedTuple):
    """An actor in the snapshot; ``pending`` counts the calls that wait or run in its process."""

    id: str
    name: str
    class_name: str
    #: ``pending``, ``alive``, ``restarting`` or ``dead``.
    state: str
    node: str
    owner: str
    restarts: int = 0
    pending: int = 0


@dataclasses.dataclass(slots=True)
class _Owner:
    driver: str
    is_driver: bool
    job_id: str
    joined: float


class ClusterView:
    """Collects what owners and agents report."""

    def __init__(self, cluster_id: str, name: str, address: str, started: float) -> None:
        self.name = name
        #: Unix seconds.
        self.started = started
        self._cluster = {"id": cluster_id, "name": name, "address": address, "started": started}
        self._nodes: dict[str, dict[str, Any]] = {}
        self._owners: dict[str, _Owner] = {}
        #: The driver of each job.
        self._drivers: dict[str, str] = {}
        self._counts = WorkCounts()
        self._history = History()
        self._actors: dict[str, dict[str, Any]] = {}
        self._dead_actors: list[str] = []
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._num_events = 0

    # -- news ----------------------------------------------------------------------------------------------------

    def node_joined(self, node_id: str, host: str, total: Mapping[str, float], now: float) -> None:
        self._nodes[node_id] = {
            "id": node_id,
            "host": host,
            "cpus": total.get("num_cpus", 0.0),
            "cpus_used": 0.0,
            "cpu_ratio": 0.0,
            "memory": int(total.get("memory", 0)),
            "memory_used": 0,
            "executors": 0,
            "store": 0,
            "store_used": 0,
            "spilled": 0,
            "received_per_second": 0,
            "gpus": [],
            "received_from": [],
            "state": "alive",
        }
        self.event("node", f"node {host} ({node_id}) joined", now)

    def node_left(self, node_id: str, now: float) -> None:
        node = self._nodes.pop(node_id, None)
        if node is not None:
            self.event("node", f"node {node['host']} ({node_id}) left", now)

    def node_state(self, node_id: str, state: str) -> None:
        """A node is ``alive``, ``draining`` or ``suspected``."""
        if node_id in self._nodes:
            self._nodes[node_id]["state"] = state

    def node_usage(self, node_id: str, usage: NodeUsage) -> None:
        node = self._nodes.get(node_id)
        if node is not None:
            gpus = [dict(zip(("name", "ratio", "memory", "memory_used"), row, strict=True)) for row in usage.gpus]
            received = [list(row) for row in usage.received_from]
            node |= usage._asdict() | {"gpus": gpus, "received_from": received}
            for actor_id, pending in usage.pending_calls:
                actor = self._actors.get(actor_id)
                if actor is not None:
                    actor["pending"] = pending
            del node["pending_calls"]

    def owner_joined(self, owner_id: str, is_driver: bool, job_id: str, now: float) -> None:
        if is_driver:
            self._drivers[job_id] = owner_id
            self.event("driver", f"driver {owner_id} joined", now)
        driver = owner_id if is_driver else self._drivers.get(job_id, "")
        self._owners[owner_id] = _Owner(driver, is_driver, job_id, now)
        self._counts.owner_joined(owner_id)

    def owner_counts(self, owner_id: str, rows: tuple[CountsRow, ...], now: float) -> None:
        self._counts.add(owner_id, self._owners[owner_id].driver, rows, now)

    def owner_left(self, owner_id: str, now: float) -> None:
        owner = self._owners.pop(owner_id)
        self._counts.owner_left(owner_id, now)
        if owner.is_driver:
            self._drivers.pop(owner.job_id, None)
            self.event("driver", f"driver {owner_id} left", now)

    def actor_requested(self, actor_id: str, name: str, class_name: str, owner_id: str = "") -> None:
        self._actors[actor_id] = ActorRow(actor_id, name, class_name, "pending", "", owner_id)._asdict()

    def actor_changed(self, actor_id: str, state: str, node_id: str, now: float, cause: str = "") -> None:
        """An actor is ``alive`` on a node, ``restarting``, or ``dead``, for some *cause*."""
        actor = self._actors[actor_id]
        actor |= {"state": state, "node": node_id or actor["node"]}
        label = f"actor `{actor['name'] or actor['class_name']}` ({actor_id})"
        if state == "restarting":
            actor["restarts"] += 1
            self.event("actor", f"{label} is being restarted", now)
        elif state == "dead":
            actor["pending"] = 0
            self.event("actor", f"{label} has ended{': ' + cause if cause else ''}", now)
            self._dead_actors.append(actor_id)
            while len(self._dead_actors) > MAX_DEAD_ACTORS:
                del self._actors[self._dead_actors.pop(0)]

    def event(self, kind: str, text: str, now: float) -> None:
        """Something has happened that a person may want to know of."""
        self._num_events += 1
        self._events.append({"number": self._num_events, "time": round(now, 3), "kind": kind, "text": text})

    @property
    def num_events(self) -> int:
        """How many events there have been."""
        return self._num_events

    def events_since(self, number: int) -> list[dict[str, Any]]:
        """Return the events after the one with this number, as far as they are kept."""
        return [event for event in self._events if event["number"] > number]

    def state_mark(self) -> tuple[Any, ...]:
        """Return what differs from before once there was more than a node's load that changed."""
        return self._num_events, self._counts.total, len(self._actors), len(self._owners)

    def tick(self, now: float) -> None:
        """A second has passed."""
        self._history.add(now, self._counts.total, self._nodes.values())

    # -- what is told --------------------------------------------------------------------------------------------

    def snapshot(
        self,
        now: float,
        used: Mapping[str, Mapping[str, float]],
        *,
        groups: Sequence[Mapping[str, Any]] = (),
        waiting: Sequence[Mapping[str, Any]] = (),
        num_records: int = 0,
    ) -> dict[str, Any]:
        """Return the model.

        Parameters
        ----------
        used
            What leases hold, by node and resource.
        groups, waiting
            Rows of the placement groups, and of the work that has no place.
        num_records
            Tasks and calls that have been recorded.
        """
        total = self._counts.total
        return {
            "version": VERSION,
            "time": now,
            "cluster": dict(self._cluster),
            "tasks": {**total._asdict(), "seconds": round(total.seconds, 6)},
            "nodes": [
                {**node, "cpus_used": max(0.0, used.get(node_id, {}).get("num_cpus", 0.0))}
                for node_id, node in self._nodes.items()
            ],
            "functions": self._counts.function_rows(),
            "cells": self._counts.cell_rows(),
            "actors": [dict(actor) for actor in self._actors.values()],
            "groups": [dict(row) for row in groups],
            "owners": [
                {
                    "id": owner_id,
                    "is_driver": owner.is_driver,
                    "job": owner.job_id,
                    "joined": round(owner.joined, 3),
                    "queued": self._counts.queued_by(owner_id),
                }
                for owner_id, owner in self._owners.items()
            ],
            "waiting": [dict(row) for row in waiting],
            "events": list(self._events),
            "history": self._history.rows(),
            "records": num_records,
            "drivers": sum(owner.is_driver for owner in self._owners.values()),
        }

"""The session of ``shoal.init(inline=True)``: no cluster, all work in this process."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from shoal.model.errors import NotInitializedError
from shoal.model.ids import random_id
from shoal.observe.cluster_view import ActorRow, ClusterView
from shoal.observe.records import RecordBook
from shoal.runtime.inline import INLINE, InlineOwner
from shoal.runtime.memory_reporter import report
from shoal.runtime.owner_answers import failure_rows, memory_row, pending_rows


class InlineSession:
    """What ``init`` made and ``shutdown`` ends: see :class:`shoal.api.session.Session`."""

    kind = "inline"
    address = ""
    scaler = None

    def __init__(self, name: str, namespace: str, total: dict[str, float], labels: dict[str, str]) -> None:
        self.cluster_id = random_id("cluster")
        self.name = name
        self.asked: dict[str, Any] = {}
        self.owner = InlineOwner(namespace, total, labels)
        self.records = RecordBook()
        self.at_end: list[Callable[[], None]] = []
        self._view = ClusterView(self.cluster_id, name, "", time.time())
        self._view.node_joined(INLINE, socket.gethostname(), total, time.time())
        self._view.owner_joined(self.owner.owner_id, True, self.owner.job_id, time.time())
        self.owner.answer = self._answer

    def snapshot(self, timeout: float = 0.0) -> dict[str, Any]:
        """Return counts as plain data; see :mod:`shoal.observe.cluster_view`."""
        if self.owner.closing:
            raise NotInitializedError("This session has ended.")
        now, owner_id = time.time(), self.owner.owner_id
        self._view.owner_counts(owner_id, self.owner.results.stats.take_changes(), now)
        self._collect()
        actors = [
            ActorRow(actor_id, name, class_name, state, INLINE, owner_id)._asdict()
            for actor_id, name, class_name, state in self.owner.list_actors()
        ]
        snapshot = self._view.snapshot(now, {}, num_records=self.records.total)
        return {**snapshot, "nodes": [{**node, **_memory()} for node in snapshot["nodes"]], "actors": actors}

    def _answer(self, topic: str, details: tuple[Any, ...]) -> Any:
        """Answer what a controller or an owner is asked elsewhere; what is pending here are generators."""
        match topic:
            case "snapshot":
                return self.snapshot()
            case "records":
                self._collect()
                return tuple(map(tuple, self.records.newest(int(details[0]))))
            case "record_page":
                self._collect()
                batches, before = self.records.page(int(details[0]), details[1])
                return tuple(map(tuple, batches)), before
            case "executor_nodes":
                return {INLINE: INLINE}
            case "leases":
                return ()
            case "pending":
                return pending_rows(self.owner.results.pending()[: int(details[0])], lambda work: INLINE)
            case "memory":
                return memory_row(report(self.owner, int(details[0]), 0.0))
            case "failures":
                return failure_rows(self.owner.results.failures, str(details[0]))
        return None

    def _collect(self) -> None:
        batch = self.owner.results.records.take(self.owner.owner_id)
        if batch is not None:
            self.records.add(batch)

    def end(self) -> None:
        for function in self.at_end:
            function()
        self.owner.end()


def _memory() -> dict[str, int]:
    """Return this machine's memory and what is in use of it, in bytes."""
    import psutil  # takes its time, and a session on a cluster leaves this to nodes

    memory = psutil.virtual_memory()
    return {"memory": memory.total, "memory_used": memory.total - memory.available}

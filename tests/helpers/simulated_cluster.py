"""A cluster that does not exist, told of by the real view: for the panel, which cannot tell the difference.

The snapshots are made by :class:`shoal.observe.cluster_view.ClusterView` and the changes by
:func:`shoal.observe.deltas.diff`; what happens comes from a seed. No process, no clock, no I/O.
"""

from __future__ import annotations

import random
from typing import Any

from shoal.model.messages import NodeUsage
from shoal.observe.cluster_view import ClusterView
from shoal.observe.deltas import diff

GIB = 1 << 30
#: What the grid shows: seconds in all, seconds of a slice, and executors.
GRID_SECONDS, GRID_STEP, GRID_EXECUTORS = 60.0, 1.0, 64


class SimulatedCluster:
    """Work on ``num_nodes`` nodes, ``tasks_per_second`` of it.

    :meth:`step` lets time pass, and returns what has changed in :attr:`snapshot`.
    """

    def __init__(
        self,
        cluster_id: str = "cluster-1",
        name: str = "minnow",
        *,
        num_nodes: int = 4,
        tasks_per_second: float = 100.0,
        num_functions: int = 6,
        num_actors: int = 3,
        gpus: bool = False,
        seed: int = 0,
        now: float = 1_000_000.0,
    ) -> None:
        self.id = cluster_id
        self.name = name
        #: What the server says of it.
        self.message = ""
        self.now = now
        self._rate = tasks_per_second
        self._random = random.Random(seed)
        self._view = ClusterView(cluster_id, name, "tls://127.0.0.1:8786", now)
        self._functions = [f"train.step_{index}" if index else "load_batch" for index in range(num_functions)]
        self._nodes = [f"node-{index}" for index in range(num_nodes)]
        self._gpus = gpus
        self._cells = 0
        self._ticked = now
        self._slices: dict[str, list[tuple[str | None, float]]] = {}
        self._sliced = now
        for index, node in enumerate(self._nodes):
            total = {"num_cpus": 8.0, "memory": 32 * GIB}
            self._view.node_joined(node, f"10.0.{index // 250}.{index % 250 + 1}", total, now)
        self._view.owner_joined("driver-1", True, "job-1", now)
        self._actors = [f"actor-{index}" for index in range(num_actors)]
        for index, actor in enumerate(self._actors):
            self._view.actor_requested(actor, "cache" if index == 0 else "", "Predictor", "driver-1")
            self._view.actor_changed(actor, "alive", self._nodes[index % num_nodes], now)
        for index in range(min(GRID_EXECUTORS, 2 * num_nodes)):
            self._slices[f"executor-{index}"] = [(None, 0.0)] * int(GRID_SECONDS / GRID_STEP)
        self.new_cell()
        self._use_nodes()
        self._groups: list[dict[str, Any]] = [
            {
                "id": "group-1",
                "strategy": "SPREAD",
                "state": "ready",
                "bundles": [{"resources": {"num_cpus": 2.0}, "node": self._nodes[0]}],
            }
        ]
        self._waiting: list[dict[str, Any]] = []
        self.snapshot = self._look()

    @property
    def row(self) -> dict[str, Any]:
        """Return the cluster's row in the list of clusters."""
        return {
            "id": self.id,
            "name": self.name,
            "address": "tls://127.0.0.1:8786",
            "kind": "detached",
            "pid": 4242,
            "host": "here",
            "created": 1_000_000.0,
            "notebook": "/home/ada/digits.ipynb",
            "python": "3.11.7",
            "tls": True,
            "state": "running",
            "message": self.message,
        }

    @property
    def cell(self) -> str:
        """Return the tag of the cell that works."""
        return f"In[{self._cells}]#run-{self._cells}"

    def new_cell(self, queued: int = 20) -> None:
        """Another cell begins to work, after that of the one before has ended."""
        if self._cells:
            pending = next(row for row in self._view_cells() if row["id"] == self.cell)
            self._count(self._functions[0], queued=-pending["queued"], finished=pending["queued"])
        self._cells += 1
        self._count(self._functions[0], queued=queued)

    def fail(self, count: int = 1) -> None:
        """Some tasks fail."""
        self._count(self._functions[-1], failed=count)

    def wait(self, reason: str = "") -> None:
        """Something has no place from now on; with no reason, nothing has."""
        what = self._functions[0]
        row = {"id": "class-1", "owner": "driver-1", "what": what, "count": 3, "reason": reason}
        self._waiting = [row] if reason else []

    def step(self, seconds: float = 0.25) -> dict[str, Any]:
        """Let time pass; returns the delta."""
        self.now += seconds
        for function in self._functions:
            share = self._rate * seconds / len(self._functions)
            ended = int(share + self._random.random())
            self._count(function, finished=ended, seconds=0.002 * ended)
        if self.now - self._ticked >= 1.0:
            self._ticked = self.now
            self._use_nodes()
            self._view.tick(self.now)
        before, self.snapshot = self.snapshot, self._look()
        return diff(before, self.snapshot)

    def grid(self) -> dict[str, Any]:
        """Return what each executor did in the last minute."""
        while self._sliced < self.now:
            self._sliced += GRID_STEP
            for number, slices in enumerate(self._slices.values()):
                del slices[0]
                function = self._functions[(number + int(self._sliced) // 7) % len(self._functions)]
                busy = self._random.random()
                slices.append((function, round(busy, 2)) if busy > 0.1 else (None, 0.0))
        return {
            "time": self._sliced,
            "step": GRID_STEP,
            "executors": [
                {"id": executor, "node": self._nodes[number // 2], "slices": [list(one) for one in slices]}
                for number, (executor, slices) in enumerate(self._slices.items())
            ],
        }

    def _count(self, function: str, queued: int = 0, finished: int = 0, failed: int = 0, seconds: float = 0.0) -> None:
        row = (self.cell, function, queued, 0, finished, failed, 0, seconds)
        self._view.owner_counts("driver-1", (row,), self.now)

    def _use_nodes(self) -> None:
        for index, node in enumerate(self._nodes):
            used = int((4 + 20 * self._random.random()) * GIB)
            gpus = (("A100", round(self._random.random(), 2), 40 * GIB, 10 * GIB),) if self._gpus else ()
            calls = tuple((actor, self._random.randrange(5)) for actor in self._actors) if index == 0 else ()
            self._view.node_usage(
                node,
                NodeUsage(
                    round(self._random.random(), 2), 32 * GIB, used, 2, 8 * GIB, used // 4, 0, used // 100, gpus, calls
                ),
            )

    def _view_cells(self) -> list[dict[str, Any]]:
        cells: list[dict[str, Any]] = self._view.snapshot(self.now, {})["cells"]
        return cells

    def _look(self) -> dict[str, Any]:
        used = {node: {"num_cpus": 4.0} for node in self._nodes}
        return self._view.snapshot(self.now, used, groups=self._groups, waiting=self._waiting, num_records=0)

"""What a node uses, once a second: processors, memory, object store, network, accelerators, and its actors' calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import psutil

from shoal.model.messages import NodeUsage
from shoal.runtime.cpu_meter import CpuMeter
from shoal.runtime.gpu_meter import GpuMeter
from shoal.runtime.store import Store


class NodeMeter:
    """Looks at a node again and again; rates are since the last look."""

    def __init__(
        self,
        store: Store,
        num_received: Callable[[], int],
        received: Callable[[], tuple[tuple[str, int], ...]],
        gpus: GpuMeter,
    ) -> None:
        """``num_received()`` says how many bytes of segments have come so far, ``received()`` from which nodes."""
        self._store = store
        self._received_from = received
        self._num_received = num_received
        self._gpus = gpus
        self._cpus = CpuMeter()
        self._received = num_received()
        self._looked_at = time.monotonic()
        #: Calls of each actor when they were last told.
        self._calls: dict[str, int] = {}

    async def look(self, num_executors: int, calls: Mapping[str, int]) -> NodeUsage:
        """Return what is used; *calls* are those that wait or run, by actor."""
        memory = psutil.virtual_memory()
        used, spilled, gpus = await asyncio.to_thread(self._look_slowly)
        now, received = time.monotonic(), self._num_received()
        rate = (received - self._received) / max(now - self._looked_at, 0.001)
        self._received, self._looked_at = received, now
        return NodeUsage(
            self._cpus.look(),
            memory.total,
            memory.total - memory.available,
            num_executors,
            self._store.room.limits.memory,
            used,
            spilled,
            int(rate),
            gpus,
            tuple(self._news_of(calls)),
            self._received_from(),
        )

    def _look_slowly(self) -> tuple[int, int, tuple[tuple[str, float, int, int], ...]]:
        used, spilled = self._store.room.usage()
        return used, spilled, self._gpus.look()

    def _news_of(self, calls: Mapping[str, int]) -> Iterable[tuple[str, int]]:
        """Give the actors that have calls, each time (it may be another node's next), and once those that have none."""
        for actor_id, count in calls.items():
            if count or self._calls.get(actor_id):
                yield actor_id, count
        for actor_id, count in self._calls.items():
            if count and actor_id not in calls:
                yield actor_id, 0
        self._calls = dict(calls)

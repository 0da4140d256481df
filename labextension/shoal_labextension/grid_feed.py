"""The task grid of one cluster, kept up to date as long as a page shows it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal.errors import ConnectError, ShoalError
from shoal.launch.dask_cluster import security_from
from shoal.launch.watching import ClusterWatch
from shoal.observe.records import Batch, unpack
from shoal_labextension.grid import STEP, Grid, Running

if TYPE_CHECKING:
    from shoal_labextension.watches import SharedWatch

#: Seconds between two grids, and between two questions where executors are and what runs there.
INTERVAL, ASK_INTERVAL = 0.5, 2.0
#: Batches that wait to be read at most: the newest; and records asked for when the first page looks.
MAX_BATCHES, FIRST_RECORDS = 500, 20_000
OPEN_TIMEOUT = 5.0
#: Drivers and nodes asked what runs, work of each driver that is looked through, and seconds for an answer.
MAX_ASKED, MAX_PENDING, ASK_TIMEOUT = 32, 1_000, 2.0


class GridFeed:
    """Reads a cluster's records while it is wanted. Lives on the server's event loop; records are read in a thread.

    Records come over a line of their own, so that nobody else's page pays for them.
    """

    def __init__(self, shared: SharedWatch) -> None:
        self._shared = shared
        self._grid = Grid()
        self._batches: deque[Batch] = deque(maxlen=MAX_BATCHES)
        self._nodes: dict[str, str] = {}
        self._running: list[Running] = []
        #: When it was asked where executors are, and what runs there.
        self._asked = self._asked_running = 0.0
        self._task: asyncio.Task[None] | None = None
        self.num_users = 0
        #: The newest message for pages, as JSON, and how many there have been.
        self.message = ""
        self.version = 0
        self.listeners: set[Callable[[], None]] = set()

    def take(self) -> None:
        """One more page shows the grid."""
        self.num_users += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def give_back(self) -> None:
        """One page less; the last ends the reading."""
        self.num_users -= 1
        if self.num_users == 0 and self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """End the reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            if not (self._shared.snapshot or {}).get("without_shoal"):
                with contextlib.suppress(ConnectError, ShoalError, OSError, ValueError):
                    await self._follow()
            await asyncio.sleep(INTERVAL)

    async def _follow(self) -> None:
        """Read records until the cluster is lost."""
        connection = self._shared.connection
        lost = asyncio.Event()
        self._grid, self._nodes = Grid(), {}
        self._batches.clear()
        watch = ClusterWatch(
            connection.address,
            security_from(connection.tls_files()),
            lambda *_: None,
            lambda _: lost.set(),
            interval=60.0,
            on_records=self._batches.append,
        )
        await watch.open(OPEN_TIMEOUT)
        try:
            # What has come meanwhile is in both: the newest batches are what is asked for.
            earlier = [Batch(*row) for row in await watch.ask("records", FIRST_RECORDS)]
            known = {batch.packed for batch in earlier}
            late = [batch for batch in self._batches if batch.packed not in known]
            self._batches.clear()
            self._batches.extend([*earlier, *late][-MAX_BATCHES:])
            while not lost.is_set():
                await self._show(watch)
                await asyncio.sleep(INTERVAL)
        finally:
            await watch.close()

    async def _show(self, watch: ClusterWatch) -> None:
        batches = list(self._batches)
        self._batches.clear()
        if batches:
            await asyncio.to_thread(self._read, batches)
        snapshot = self._shared.snapshot
        now = snapshot["time"] if snapshot is not None else time.time()
        if snapshot is not None and time.monotonic() - self._asked_running > ASK_INTERVAL:
            self._asked_running = time.monotonic()
            busy = snapshot["tasks"]["running"] > 0
            self._running = await self._find_running(watch, snapshot, now) if busy else []
        if self._grid.executors - self._nodes.keys() and time.monotonic() - self._asked > ASK_INTERVAL:
            self._asked = time.monotonic()
            rows = await watch.ask("processes")
            self._nodes = {name: node for name, node in self._nodes.items() if name in self._grid.executors} | {
                executor: node for executor, _, node in rows
            }
        executors = self._grid.rows(now, self._nodes, self._running)
        message = {
            "type": "grid",
            "cluster": self._shared.connection.id,
            "time": now,
            "step": STEP,
            "executors": executors,
        }
        self.message = json.dumps(message, separators=(",", ":"))
        self.version += 1
        for listener in list(self.listeners):
            listener()

    async def _find_running(self, watch: ClusterWatch, snapshot: dict[str, Any], now: float) -> list[Running]:
        """Ask nodes what began last in each executor, and drivers which of that has not ended."""
        nodes = [node["id"] for node in snapshot["nodes"]][:MAX_ASKED]
        drivers = [owner["id"] for owner in snapshot["owners"] if owner["is_driver"]][:MAX_ASKED]
        begun: dict[str, tuple[str, float]] = {}
        for node, rows in zip(nodes, await _ask_each(watch, nodes, "executors"), strict=True):
            for executor, _, _, _, _, task, since, _ in rows:
                self._nodes.setdefault(executor, node)
                begun[task] = (executor, now - since)
        return [
            Running(begun[task][0], function, begun[task][1])
            for rows in await _ask_each(watch, drivers, "pending", MAX_PENDING)
            for task, _, _, function, _, state, *_ in rows
            if state == "running" and task in begun
        ]

    def _read(self, batches: list[Batch]) -> None:
        for batch in batches:
            with contextlib.suppress(ValueError):  # of another version: it says so elsewhere
                self._grid.add(unpack(batch.packed))


async def _ask_each(watch: ClusterWatch, targets: list[str], topic: str, *details: Any) -> list[Any]:
    """Return the rows that each answers; none of those that do not."""
    asked = (watch.ask(topic, *details, target=target, timeout=ASK_TIMEOUT) for target in targets)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return [() if isinstance(answer, BaseException) else answer for answer in answers]


__all__ = ["GridFeed"]

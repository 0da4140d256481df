"""Which clusters there are: this user's registry, starts in progress, and entries that cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal.launch import registry

if TYPE_CHECKING:
    from shoal.launch.registry import Connection
    from shoal_labextension.clusters import ClusterReader, Reading
    from shoal_labextension.starts import Starts
    from shoal_labextension.watches import SharedWatch

#: Seconds between two scans of the registry, and two looks at a cluster that nobody watches.
SCAN_INTERVAL, LOOK_INTERVAL = 1.0, 5.0


class ClusterList:
    """Scans while somebody listens, and at no other time. Lives on the server's event loop.

    Attributes
    ----------
    message
        The newest list for pages, as JSON; "" before the first.
    version
        Counts its changes.
    """

    def __init__(self, reader: ClusterReader, starts: Starts, find_watch: Callable[[str], SharedWatch | None]) -> None:
        self.message = ""
        self.version = 0
        self._reader = reader
        self._starts = starts
        self._find_watch = find_watch
        self._listeners: set[Callable[[], None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        #: What single looks gave, and when they are to be repeated.
        self._readings: dict[str, tuple[Reading, float]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    def listen(self, listener: Callable[[], None]) -> None:
        """Scan from now on, and call *listener* when the list has changed."""
        self._listeners.add(listener)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="shoal-cluster-list")

    def leave(self, listener: Callable[[], None]) -> None:
        """Call *listener* no more."""
        self._listeners.discard(listener)
        if not self._listeners and self._task is not None:
            self._task.cancel()

    def scan_soon(self) -> None:
        """Something has happened that changes the list."""
        self._due.set()

    async def close(self) -> None:
        """End what runs."""
        tasks = [*self._looking, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def read(self) -> list[dict[str, Any]]:
        """Return the list now, with the newest snapshot of each cluster."""
        connections, damaged = await asyncio.to_thread(_scan)
        readings = await self._reader.read(connections)
        rows = [
            {**connection.to_json(), **_said(reading), "snapshot": reading.snapshot}
            for connection, reading in zip(connections, readings, strict=True)
        ]
        known = {connection.id for connection in connections}
        return rows + [{**row, "snapshot": None} for row in self._other_rows(known, damaged)]

    async def _run(self) -> None:
        while True:
            connections, damaged = await asyncio.to_thread(_scan)
            known = {connection.id for connection in connections}
            self._readings = {name: found for name, found in self._readings.items() if name in known}
            rows = [{**connection.to_json(), **self._state_of(connection)} for connection in connections]
            rows += self._other_rows(known, damaged)
            message = json.dumps({"type": "clusters", "clusters": rows}, separators=(",", ":"))
            if message != self.message:
                self.message = message
                self.version += 1
                for listener in list(self._listeners):
                    listener()
            self._due.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), SCAN_INTERVAL)

    def _state_of(self, connection: Connection) -> dict[str, str]:
        watch = self._find_watch(connection.id)
        if watch is not None and watch.state != "connecting":
            return {"state": watch.state, "message": watch.message}
        reading, again = self._readings.get(connection.id, (None, 0.0))
        if watch is None and time.monotonic() >= again and not self._is_looking(connection):
            task = asyncio.create_task(self._look(connection), name=connection.id)
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
        return _said(reading) if reading is not None else {"state": "running", "message": ""}

    def _is_looking(self, connection: Connection) -> bool:
        return any(task.get_name() == connection.id for task in self._looking)

    async def _look(self, connection: Connection) -> None:
        [reading] = await self._reader.read([connection])
        self._readings[connection.id] = (reading, time.monotonic() + LOOK_INTERVAL)
        self.scan_soon()

    def _other_rows(self, known: set[str], damaged: dict[str, str]) -> list[dict[str, Any]]:
        starting = [start.row() for start in self._starts.listed() if start.id not in known]
        return starting + [
            {
                "id": name,
                "name": "",
                "address": "",
                "kind": "unreadable",
                "pid": 0,
                "host": socket.gethostname(),
                "created": 0.0,
                "notebook": "",
                "python": "",
                "tls": False,
                "control": "",
                "owner": "",
                "state": "unreachable",
                "message": problem,
            }
            for name, problem in sorted(damaged.items())
        ]


def _scan() -> tuple[list[Connection], dict[str, str]]:
    return registry.list_clusters(), registry.list_damaged()


def _said(reading: Reading) -> dict[str, str]:
    return {"state": reading.state, "message": reading.message}

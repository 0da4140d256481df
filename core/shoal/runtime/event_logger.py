"""What a controller writes into its log on disk, and when. The log is begun with the first work that is heard of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shoal._version import __version__
from shoal.observe.cluster_view import ClusterView
from shoal.observe.event_log import EVENTS, EXECUTORS, RECORDS, SNAPSHOT, EventLog
from shoal.observe.executor_places import ExecutorPlaces
from shoal.observe.records import Batch

logger = logging.getLogger("shoal")

#: Seconds between two snapshots, while something changes.
SNAPSHOT_INTERVAL = 10.0


class EventLogger:
    """See the module's description. Lives on the controller's event loop, and never holds it up.

    Parameters
    ----------
    root
        Where logs are; None for no log.
    about
        Id, name, address and start of the cluster.
    """

    def __init__(
        self,
        root: Path | None,
        about: dict[str, Any],
        snapshot: Callable[[], dict[str, Any]],
        view: ClusterView,
        places: ExecutorPlaces,
    ) -> None:
        self._root = root
        self._about = {**about, "shoal": __version__}
        self._take_snapshot = snapshot
        self._view = view
        self._places = places
        self._log: EventLog | None = None
        #: The last event and the last point of the history that were written, and when and how things were then.
        self._event = 0
        self._point = 0.0
        self._taken = 0.0
        self._mark: tuple[Any, ...] = ()

    def work_came(self) -> None:
        """An owner has told of work."""
        if self._log is None and self._root is not None:
            loop = asyncio.get_running_loop()

            def trouble(reason: str) -> None:
                logger.warning(reason)
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._view.event, "log", reason, time.time())

            self._log = EventLog(self._root / self._about["id"], self._about, trouble)
            self._log.append(EXECUTORS, self._places.nodes())
            self._write_state()

    def recorded(self, batch: Batch) -> None:
        if self._log is not None:
            self._log.append(RECORDS, tuple(batch))

    def executor_started(self, executor_id: str, node_id: str) -> None:
        if self._places.note(executor_id, node_id) and self._log is not None:
            self._log.append(EXECUTORS, {executor_id: node_id})

    def tick(self) -> None:
        """About a second has passed."""
        if self._log is None:
            return
        self._write_events()
        due = time.monotonic() - self._taken >= SNAPSHOT_INTERVAL
        if due and self._view.state_mark() != self._mark:
            self._write_state()

    def driver_leaves(self) -> None:
        """Much goes with a driver: this is how it was."""
        if self._log is not None:
            self._write_state()

    async def close(self) -> None:
        """Write what is left, within a few seconds."""
        log, self._root = self._log, None
        if log is not None:
            self._write_state()
            self._log = None
            await asyncio.to_thread(log.close)

    def _write_state(self) -> None:
        assert self._log is not None
        self._write_events()
        snapshot = self._take_snapshot()
        history = [point for point in snapshot["history"] if point["time"] > self._point]
        if history:
            self._point = history[-1]["time"]
        self._log.append(SNAPSHOT, {**snapshot, "events": [], "history": history})
        self._taken, self._mark = time.monotonic(), self._view.state_mark()

    def _write_events(self) -> None:
        if self._log is not None and self._view.num_events > self._event:
            self._log.append(EVENTS, self._view.events_since(self._event))
            self._event = self._view.num_events

"""Keeping a detached cluster: as many nodes as there is work for, and an end when there has been none for long."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from shoal.launch.control import ADAPT_OPERATION, IDLE_OPERATION, Operation
from shoal.launch.specs import LEAST_IDLE
from shoal.launch.watching import ClusterWatch
from shoal.model.errors import ConnectError, ShoalError

#: Seconds between two looks, and without less need after which nodes of this machine leave.
LOOK, SHRINK_AFTER = 1.0, 30.0
#: Seconds before an idle stop at which it is announced.
NOTICE = 60.0
#: Seconds for a look, and for nodes to come or go.
ASK_TIMEOUT, SCALE_TIMEOUT = 5.0, 60.0


@dataclasses.dataclass(slots=True)
class Need:
    """What the work of a cluster needs; read by other threads, so each field is replaced as a whole."""

    num_nodes: int = 0
    #: Addresses of Dask workers that must not go: work runs there, actors live there, or values are there.
    busy: frozenset[str] = frozenset()


class Idleness:
    """How long there has been no work. Times are in seconds of any clock."""

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._since = now
        self._ended = -1
        self._announced = False

    def set_limit(self, limit: float, now: float) -> None:
        """Wait *limit* seconds from *now* on; 0 for ever."""
        self.limit, self._since, self._announced = limit, now, False

    def look(self, tasks: dict[str, Any], now: float) -> str:
        """Take note of a snapshot's counts, and return ``stop``, ``announce`` (once) or ""."""
        ended = tasks["finished"] + tasks["failed"] + tasks["cancelled"]
        if tasks["queued"] > 0 or tasks["running"] > 0 or ended != self._ended:
            self._since, self._ended, self._announced = now, ended, False
        if not self.limit:
            return ""
        left = self._since + self.limit - now
        if left <= 0:
            return "stop"
        if left <= min(NOTICE, self.limit / 2) and not self._announced:
            self._announced = True
            return "announce"
        return ""

    def left(self, now: float) -> float:
        return max(0.0, self._since + self.limit - now)


class Keeper:
    """Looks at a detached cluster every second. Lives on the event loop of the process that keeps it.

    Parameters
    ----------
    ended
        Set when the cluster is to end.
    scale
        Has a number of nodes; None if adapting is somebody else's, who reads :attr:`need`.
    adapt
        Told the fewest and the most nodes, or None for a fixed number; raises if that cannot be.
    """

    def __init__(
        self,
        ended: asyncio.Event,
        idle_stop: float,
        scale: Callable[[int], Awaitable[Any]] | None,
        adapt: Callable[[tuple[int, int] | None], Awaitable[None]] | None,
    ) -> None:
        self._ended = ended
        self._idleness = Idleness(idle_stop, time.monotonic())
        self._scale = scale
        self._adapt = adapt
        self._range: tuple[int, int] | None = None
        self._enough_since: float | None = None
        self.need = Need()
        #: Operations (:mod:`shoal.launch.control`) that are answered here.
        self.operations: dict[str, Operation] = {
            ADAPT_OPERATION: self._serve_adapt,
            IDLE_OPERATION: self._serve_idle_stop,
        }

    async def run(self, watch: ClusterWatch) -> None:
        """Keep the cluster until it ends; a background task. *watch* is open."""
        while not self._ended.is_set():
            await asyncio.sleep(LOOK)
            snapshot = watch.snapshot
            if snapshot is None:
                continue
            # The next look may do better; that the cluster has ended is told otherwise.
            with contextlib.suppress(ConnectError, ShoalError, TimeoutError):
                await self._look(watch, snapshot)

    async def set_adaptive(self, adaptive: tuple[int, int] | None) -> None:
        """Adapt between the fewest and the most nodes from now on; None for no more.

        Raises
        ------
        ShoalError
            This cluster cannot.
        """
        if self._adapt is None and self._scale is None:
            raise ShoalError("This cluster was started elsewhere: scale it there.")
        if self._adapt is not None:
            await self._adapt(adaptive)
        self._range, self._enough_since = adaptive, None

    async def _look(self, watch: ClusterWatch, snapshot: dict[str, Any]) -> None:
        now = time.monotonic()
        match self._idleness.look(snapshot["tasks"], now):
            case "stop":
                self._ended.set()
            case "announce":
                seconds = self._idleness.left(now)
                text = f"There is no work: the cluster stops in {seconds:.0f} s unless some comes."
                await watch.ask("notice", text, timeout=ASK_TIMEOUT)
        if self._range is None:
            return
        self.need = Need(nodes_needed(snapshot), await self._busy(watch, snapshot))
        if self._scale is not None:
            await self._follow(len(snapshot["nodes"]), now)

    async def _busy(self, watch: ClusterWatch, snapshot: dict[str, Any]) -> frozenset[str]:
        if self._adapt is None:
            return frozenset()
        storing = {node["id"] for node in snapshot["nodes"] if node["store_used"] and snapshot["drivers"]}
        rows = await watch.ask("nodes", timeout=ASK_TIMEOUT)
        return frozenset(address for node_id, address, _, total, free in rows if free != total or node_id in storing)

    async def _follow(self, num_nodes: int, now: float) -> None:
        """Have as many nodes as are needed: more at once, fewer when it has been so for a while."""
        assert self._range is not None and self._scale is not None
        wanted = min(max(self.need.num_nodes, self._range[0]), self._range[1])
        if wanted >= num_nodes:
            self._enough_since = None
        elif self._enough_since is None:
            self._enough_since = now
        if wanted > num_nodes or (self._enough_since is not None and now - self._enough_since >= SHRINK_AFTER):
            self._enough_since = None
            await self._scale(wanted)

    async def _serve_adapt(self, minimum: int = 0, maximum: int = 0) -> dict[str, Any]:
        """Serve :data:`~shoal.launch.control.ADAPT_OPERATION`; a *maximum* of 0 turns it off."""
        try:
            await self.set_adaptive((int(minimum), int(maximum)) if maximum else None)
        except Exception as error:  # boundary: whoever asked is told
            return {"failed": str(error) or type(error).__name__}
        return {}

    async def _serve_idle_stop(self, seconds: float) -> dict[str, Any]:
        """Serve :data:`~shoal.launch.control.IDLE_OPERATION`; 0 turns it off."""
        if seconds and seconds < LEAST_IDLE:
            return {"failed": f"An idle stop takes {LEAST_IDLE:g} s or more, not {seconds:g}."}
        self._idleness.set_limit(float(seconds), time.monotonic())
        return {}


def nodes_needed(snapshot: dict[str, Any]) -> int:
    """Return how many nodes the work in a snapshot fills: each that waits is taken to need one CPU."""
    nodes = snapshot["nodes"]
    used: float = sum(node["cpus_used"] for node in nodes)
    waiting: float = max(snapshot["tasks"]["queued"], sum(row["count"] for row in snapshot["waiting"]))
    per_node: float = max((node["cpus"] for node in nodes), default=1.0) or 1.0
    return math.ceil((used + waiting) / per_node)

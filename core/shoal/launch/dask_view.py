"""A Dask cluster without shoal, as far as it can be shown: what the scheduler tells of its workers, in our model.

A scheduler that takes no plugins, or one that has been started anew, has no controller that could be asked. It still
answers Dask's own ``identity``, so that people see workers, load, memory and Dask's tasks instead of nothing. Dask has
no news of these to wait for: it is asked once a second, while somebody looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from shoal.launch.dask_cluster import security_from
from shoal.launch.registry import Connection
from shoal.model.errors import ConnectError
from shoal.observe.cluster_view import VERSION
from shoal.observe.deltas import diff
from shoal.observe.functions import NOTHING, Counts
from shoal.observe.history import STEP, History
from shoal.runtime.scope import Scope
from shoal.transport.comms import Security, connect
from shoal.transport.stream import Comm

#: What people are told where they see this.
NOTICE = (
    "Dask only: there is no shoal in this Dask cluster. Workers and load are as Dask tells of them; cells, logs, "
    "objects and timelines need shoal: `shoal.init(address)` brings it in, or says what is in the way."
)
#: States of Dask's tasks on a worker that run, and that have the worker and do not run.
_RUNNING, _QUEUED = ("executing", "long-running"), ("ready", "waiting", "constrained", "fetch", "flight", "rescheduled")


class DaskWatch:
    """Looks at a Dask cluster. Use it on one event loop only.

    Call order: construct, await :meth:`open`, then await :meth:`close`. ``on_end(reason)`` is called once if the
    scheduler ends, or does not answer within *timeout* seconds, before you close.

    Parameters
    ----------
    address, security
        The Dask scheduler's.
    on_change
        As that of :class:`shoal.launch.watching.ClusterWatch`.
    on_end
        Gets the reason.
    """

    def __init__(
        self,
        address: str,
        security: Security,
        on_change: Callable[[dict[str, Any], dict[str, Any] | None], None],
        on_end: Callable[[str], None],
    ) -> None:
        self.address = address
        self._security = security
        self._on_change = on_change
        self._on_end = on_end
        self._history = History()
        self._scope = Scope(f"look at Dask in {address}")
        self._comm: Comm | None = None
        self._last: dict[str, Any] | None = None

    async def open(self, timeout: float) -> None:
        """Connect, and return when the first snapshot is there.

        Raises
        ------
        ConnectError
            No Dask scheduler answers within *timeout* seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                self._comm = await connect(self.address, self._security, timeout)
                await self._look()
        except TimeoutError:
            await self.close()
            raise ConnectError(f"`{self.address}` did not answer within {timeout:g} s.", address=self.address) from None
        except (OSError, ValueError) as error:  # a line that is lost, and answers that are none
            await self.close()
            raise ConnectError(f"No Dask scheduler at `{self.address}`: {error}", address=self.address) from error
        self._scope.start(self._run(timeout))

    async def close(self) -> None:
        """Hang up; harmless the second time."""
        await self._scope.close()
        if self._comm is not None:
            self._comm.abort()

    async def _run(self, timeout: float) -> None:
        reason = "The Dask cluster has ended."
        try:
            while True:
                await asyncio.sleep(STEP)
                async with asyncio.timeout(timeout):
                    await self._look()
        except TimeoutError:
            reason = f"The Dask scheduler did not answer within {timeout:g} s."
        except (OSError, ValueError):
            pass
        self._on_end(reason)

    async def _look(self) -> None:
        assert self._comm is not None
        await self._comm.write({"op": "identity", "n_workers": -1})
        identity = await self._comm.read()
        if not isinstance(identity, dict) or "workers" not in identity:
            raise ValueError("what listens there is no Dask scheduler")
        shown = snapshot_of(identity, time.time(), self._history)
        delta = None if self._last is None else diff(self._last, shown)
        self._last = shown
        self._on_change(shown, delta)


async def fetch_dask_snapshot(connection: Connection, timeout: float) -> dict[str, Any]:
    """Return one snapshot of a Dask cluster without shoal, that *connection* names.

    Raises
    ------
    ConnectError
        No Dask scheduler answers within *timeout* seconds.
    """
    found: list[dict[str, Any]] = []
    security = security_from(connection.tls_files())
    watch = DaskWatch(connection.address, security, lambda shown, _: found.append(shown), lambda _: None)
    try:
        await watch.open(timeout)
    finally:
        await watch.close()
    return found[0]


def snapshot_of(identity: Mapping[str, Any], now: float, history: History) -> dict[str, Any]:
    """Return a snapshot (:mod:`shoal.observe.cluster_view`), ``without_shoal``, of what a Dask scheduler has answered.

    Parameters
    ----------
    identity
        The answer to ``identity``.
    now
        Unix seconds.
    history
        Gets a point, and gives those of the snapshot.
    """
    nodes = [_node(address, worker) for address, worker in identity["workers"].items()]
    states = [dict(worker.get("metrics", {}).get("task_counts", {})) for worker in identity["workers"].values()]
    running, queued = (
        sum(int(counts.get(name, 0)) for counts in states for name in names) for names in (_RUNNING, _QUEUED)
    )
    counts = Counts(queued, running) if states else NOTHING
    history.add(now, counts, nodes)
    address = str(identity.get("address", ""))
    started = float(identity.get("started", now))
    cluster = {"id": str(identity.get("id", "")), "name": "", "address": address, "started": started}
    empty = ("functions", "cells", "actors", "groups", "owners", "waiting", "events")
    return {
        "version": VERSION,
        "time": now,
        "without_shoal": True,
        "cluster": cluster,
        "tasks": counts._asdict(),
        "nodes": nodes,
        **{name: [] for name in empty},
        "history": history.rows(),
        "records": 0,
        "drivers": 0,
    }


def _node(address: str, worker: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a Dask worker; what it measures comes with its heartbeats, so at first there is nothing."""
    metrics = worker.get("metrics", {})
    threads = max(1, int(worker.get("nthreads", 1)))
    counts = metrics.get("task_counts", {})
    return {
        "id": address,
        "host": str(worker.get("host", "")),
        "cpus": float(threads),
        "cpus_used": float(min(threads, sum(int(counts.get(name, 0)) for name in _RUNNING))),
        "cpu_ratio": min(1.0, float(metrics.get("cpu", 0.0)) / 100 / threads),
        "memory": int(worker.get("memory_limit") or 0),
        "memory_used": int(metrics.get("memory", 0)),
        "executors": None,
        "store": 0,
        "store_used": 0,
        "spilled": int(metrics.get("spilled_bytes", {}).get("disk", 0)),
        "received_per_second": 0,
        "gpus": [],
        "received_from": [],
        "state": "alive" if worker.get("status") == "running" else "draining",
    }


__all__ = ["NOTICE", "DaskWatch", "fetch_dask_snapshot", "snapshot_of"]

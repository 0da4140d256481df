"""Single looks at clusters that nobody watches."""

from __future__ import annotations

import asyncio
import importlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shoal.errors import ConnectError, ShoalMissingError

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence
    from types import ModuleType

    from shoal.launch.registry import Connection

#: The version of the snapshot that the panel's JavaScript understands.
SNAPSHOT_VERSION = 2
#: A look at one cluster ends after this many seconds, so one that is stuck does not hold up the others.
FETCH_TIMEOUT = 2.0


@dataclass(frozen=True)
class Reading:
    """What one look at one cluster gave."""

    state: Literal["running", "unreachable"]
    message: str = ""
    snapshot: dict[str, Any] | None = None


class ClusterReader:
    """Answers "how are these clusters?" for any number of pages at once.

    Runs on the Jupyter server's event loop and never blocks it: ``distributed`` is imported in a thread. At any time
    there is at most one look in flight for each cluster; requests that come meanwhile share its answer. Nothing
    outlives a request by more than `FETCH_TIMEOUT`.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        #: Looks that have not ended, by cluster id; an entry leaves when its task is done.
        self._in_flight: dict[str, asyncio.Task[Reading]] = {}
        self._probe: ModuleType | None = None

    async def read(self, connections: Sequence[Connection]) -> list[Reading]:
        """Look at some clusters at once; one that cannot be reached is no error, but has a message that says why."""
        return await asyncio.gather(*map(self._look, connections))

    async def _look(self, connection: Connection) -> Reading:
        task = self._in_flight.get(connection.id)
        if task is None:
            task = asyncio.create_task(self._fetch(connection), name=f"shoal-look-{connection.id}")
            self._in_flight[connection.id] = task
            task.add_done_callback(lambda _: self._in_flight.pop(connection.id, None))
        # shielded: one page that goes away must not take the answer from the others
        return await asyncio.shield(task)

    async def _fetch(self, connection: Connection) -> Reading:
        """Fetch one snapshot. This is the boundary at which failures become words in the panel."""
        if self._probe is None:
            # takes half a second, as it brings in `distributed`: not at server start, not on the loop
            self._probe = await asyncio.to_thread(importlib.import_module, "shoal.launch.probe")
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                try:
                    snapshot = await self._probe.fetch_snapshot(connection, timeout=FETCH_TIMEOUT)
                except ShoalMissingError:
                    return await self._fetch_dask(connection)
        except TimeoutError:
            return Reading("unreachable", f"The cluster gave no answer within {FETCH_TIMEOUT:g} s.")
        except (ConnectError, OSError) as error:
            return Reading("unreachable", str(error) or type(error).__name__)
        except Exception as error:
            # one damaged connection must not hide the healthy clusters beside it
            self._log.warning("shoal: looking at cluster %s failed", connection.id, exc_info=True)
            return Reading("unreachable", f"{type(error).__name__}: {error}")
        return check_snapshot(snapshot)

    async def _fetch_dask(self, connection: Connection) -> Reading:
        """Show what Dask tells of a cluster without shoal, and say that this is so."""
        dask_view = await asyncio.to_thread(importlib.import_module, "shoal.launch.dask_view")
        snapshot = await dask_view.fetch_dask_snapshot(connection, FETCH_TIMEOUT)
        return Reading("running", dask_view.NOTICE, snapshot)


def check_snapshot(snapshot: dict[str, Any]) -> Reading:
    """Hold back what the page could not read, and say so."""
    version = snapshot.get("version")
    if version != SNAPSHOT_VERSION:
        return Reading(
            "running",
            f"The cluster reports its state in version {version}, this JupyterLab reads version "
            f"{SNAPSHOT_VERSION}. Use the same version of shoal in both environments.",
        )
    try:
        json.dumps(snapshot, allow_nan=False)
    except (TypeError, ValueError) as error:
        return Reading("running", f"The state that the cluster reports is not valid JSON: {error}.")
    return Reading("running", snapshot=snapshot)

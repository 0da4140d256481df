"""Lines to clusters, one each for all pages and requests: opened by the first that looks, closed after the last.

Imports `distributed`, which takes half a second: whoever needs this module imports it in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from shoal.errors import ConnectError, ShoalMissingError
from shoal.launch import probe, registry
from shoal.launch.dask_cluster import security_from
from shoal.launch.dask_view import NOTICE, DaskWatch
from shoal.launch.watching import ClusterWatch
from shoal.observe.deltas import diff
from shoal_labextension.clusters import FETCH_TIMEOUT, check_snapshot
from shoal_labextension.grid_feed import GridFeed

if TYPE_CHECKING:
    import logging

    from shoal.launch.registry import Connection

#: Seconds between two changes of a snapshot.
INTERVAL = 0.25
#: Seconds for which a line stays open that nobody uses: a page that is reloaded finds it.
LINGER = 4.0
#: Seconds to open a line, and between two attempts at first and at most.
OPEN_TIMEOUT, RETRY, MAX_RETRY = 5.0, 0.5, 5.0
#: Seconds between two looks whether there is shoal in a Dask cluster by now.
LOOK_FOR_SHOAL = 20.0
#: A page that has missed so many changes gets the whole snapshot.
MAX_BEHIND = 80


class SharedWatch:
    """One cluster as it is now, and a way to ask it. Lives on the server's event loop.

    Attributes
    ----------
    state, message
        ``connecting``, ``running``, ``unreachable`` or ``ended``, and why.
    snapshot
        None as long as there is none that can be shown.
    version
        Counts the changes of any of these.
    listeners
        Called at each change.
    """

    def __init__(self, connection: Connection, log: logging.Logger) -> None:
        self.connection = connection
        self.state = "connecting"
        self.message = ""
        self.snapshot: dict[str, Any] | None = None
        self.version = 0
        self.listeners: set[Callable[[], None]] = set()
        self.num_users = 0
        self.grid = GridFeed(self)
        self._log = log
        #: What is older than this is not known to be followed by what we have.
        self._base = 0
        self._last_delta: dict[str, Any] | None = None
        self._encoded: dict[int, str] = {}
        self._watch: ClusterWatch | None = None
        self._first_try = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"shoal-watch-{connection.id}")

    async def ask(self, topic: str, *details: Any, target: str = "", timeout: float = 5.0) -> Any:
        """As :meth:`shoal.launch.watching.ClusterWatch.ask`; waits for the line to be opened."""
        await self._first_try.wait()
        if self._watch is None:
            raise ConnectError(self.message or "The cluster does not answer.")
        return await self._watch.ask(topic, *details, target=target, timeout=timeout)

    def change_since(self, version: int, shown: dict[str, Any] | None) -> str:
        """Return the message that brings a page up to date, as JSON; there is a snapshot.

        Parameters
        ----------
        version, shown
            What it was told last.
        """
        assert self.snapshot is not None
        stale = shown is None or version < self._base or self.version - version > MAX_BEHIND
        key = -1 if stale else version
        text = self._encoded.get(key)
        if text is None:
            kind: dict[str, Any]
            if stale or shown is None:
                kind = {"type": "snapshot", "cluster": self.connection.id, "snapshot": self.snapshot}
            else:
                direct = version == self.version - 1 and self._last_delta is not None
                delta = self._last_delta if direct else diff(shown, self.snapshot)
                kind = {"type": "delta", "cluster": self.connection.id, "delta": delta}
            text = self._encoded[key] = json.dumps(kind, separators=(",", ":"), allow_nan=False)
        return text

    async def close(self) -> None:
        """Hang up; harmless the second time."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.grid.close()

    async def _run(self) -> None:
        pause = RETRY
        while True:
            if await self._follow():
                pause = RETRY
            self._first_try.set()
            if await asyncio.to_thread(registry.find, self.connection.id) is None:
                self._become("ended", self.message or "The cluster has ended.")
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RETRY)

    async def _follow(self) -> bool:
        """Look at the cluster until it is lost; returns whether it was there. Boundary: failures become words."""
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_end(reason: str) -> None:
            if not ended.done():
                ended.set_result(reason)

        watch: ClusterWatch | None = None
        try:
            security = security_from(self.connection.tls_files())
            watch = ClusterWatch(self.connection.address, security, self._changed, on_end, interval=INTERVAL)
            await watch.open(OPEN_TIMEOUT)
            self._watch = watch
            self._become("running", self.message if self.snapshot is None else "")
            self._first_try.set()
            self._become("unreachable", await ended)
            return True
        except Exception as error:
            if not isinstance(error, ConnectError | OSError):
                self._log.warning("shoal: watching %s failed", self.connection.id, exc_info=True)
            said = await self._explain(error)
        finally:
            self._watch = None
            if watch is not None:
                await watch.close()
        if said is None:
            return await self._follow_dask()
        self._become("unreachable", said)
        return False

    async def _follow_dask(self) -> bool:
        """Look at a Dask cluster without shoal for a while, or until it is lost; returns whether it was there."""
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_end(reason: str) -> None:
            if not ended.done():
                ended.set_result(reason)

        watch = DaskWatch(self.connection.address, security_from(self.connection.tls_files()), self._changed, on_end)
        try:
            await watch.open(OPEN_TIMEOUT)
            self._become("running", NOTICE)
            self._first_try.set()
            self._become("unreachable", await asyncio.wait_for(ended, LOOK_FOR_SHOAL))
        except TimeoutError:
            pass  # it is still there: perhaps with shoal
        except ConnectError as error:
            self._become("unreachable", str(error))
            return False
        finally:
            await watch.close()
        return True

    async def _explain(self, error: Exception) -> str | None:
        """Say why a cluster cannot be watched; None for a Dask cluster without shoal, which answers, and hangs up."""
        said = str(error) or type(error).__name__
        if said.startswith("The cluster has ended"):
            try:
                await probe.fetch_snapshot(self.connection, FETCH_TIMEOUT)
            except ShoalMissingError:
                return None
            except (ConnectError, TimeoutError, OSError) as reason:
                return str(reason) or said
            except Exception:  # boundary: it is no Dask scheduler at all
                return f"Whatever listens at `{self.connection.address}` is no cluster that shoal can show."
        return said

    def _changed(self, snapshot: dict[str, Any], delta: dict[str, Any] | None) -> None:
        reading = check_snapshot(snapshot) if delta is None else None
        if reading is not None and reading.snapshot is None:
            self.snapshot, self.message = None, reading.message
        elif delta is None or self.snapshot is not None:
            self.snapshot = snapshot
        self._last_delta = delta
        self._tell()
        if delta is None:
            self._base = self.version

    def _become(self, state: str, message: str) -> None:
        if (self.state, self.message) != (state, message):
            self.state, self.message = state, message
            self._last_delta = {}
            self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._encoded.clear()
        for listener in list(self.listeners):
            listener()


class Watches:
    """The lines that are open. Lives on the server's event loop."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._open: dict[str, SharedWatch] = {}
        self._closing: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    def find(self, cluster_id: str) -> SharedWatch | None:
        """Return the line to a cluster if one is open."""
        return self._open.get(cluster_id)

    def take(self, connection: Connection) -> SharedWatch:
        """Return the line to a cluster, opened if need be; give it back."""
        timer = self._closing.pop(connection.id, None)
        if timer is not None:
            timer.cancel()
        watch = self._open.get(connection.id)
        if watch is not None and watch.state == "ended":
            self._close(connection.id)
            watch = None
        if watch is None:
            watch = self._open[connection.id] = SharedWatch(connection, self._log)
        watch.num_users += 1
        return watch

    def give_back(self, watch: SharedWatch) -> None:
        """One user less; the line closes a little after the last."""
        watch.num_users -= 1
        cluster_id = watch.connection.id
        if watch.num_users == 0 and self._open.get(cluster_id) is watch and not self._closed:
            loop = asyncio.get_running_loop()
            self._closing[cluster_id] = loop.call_later(LINGER, self._close, cluster_id)

    @contextlib.asynccontextmanager
    async def line(self, connection: Connection) -> AsyncIterator[SharedWatch]:
        """The line to a cluster, for one request."""
        watch = self.take(connection)
        try:
            yield watch
        finally:
            self.give_back(watch)

    async def close(self) -> None:
        """Close every line."""
        self._closed = True
        for timer in self._closing.values():
            timer.cancel()
        for cluster_id in list(self._open):
            self._close(cluster_id)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _close(self, cluster_id: str) -> None:
        self._closing.pop(cluster_id, None)
        watch = self._open.pop(cluster_id, None)
        if watch is not None:
            task = asyncio.create_task(watch.close())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


__all__ = ["SharedWatch", "Watches"]

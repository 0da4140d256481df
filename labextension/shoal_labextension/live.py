"""The websocket of a page: the list of clusters, the snapshots of those it watches and what changes in them.

There is no queue that could grow: a page is told how things are when it is ready to be told, so that a slow one skips
what was in between. A page that is paused gets nothing, and needs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from shoal._version import __version__
from shoal.launch import registry
from shoal_labextension.access import AUTH_RESOURCE, ID, may

if TYPE_CHECKING:
    from shoal_labextension.services import Services
    from shoal_labextension.watches import SharedWatch

#: The version of the messages.
VERSION = 1
#: Seconds between two messages about a cluster: at least, at most, and unless a page says otherwise.
MIN_INTERVAL, MAX_INTERVAL, DEFAULT_INTERVAL = 0.25, 5.0, 0.5
#: Seconds after which a page that waits for its first snapshot is looked after again.
HURRY = 0.05
#: Clusters that a page may watch, and bytes of what it sends, at most.
MAX_WATCHED, MAX_MESSAGE = 64, 64 << 10
#: Seconds after which a notice is old news for a page that has just come.
NOTICE_AGE = 60.0
_ID = re.compile(ID)


class Watched:
    """What a page was told about one cluster."""

    def __init__(self, watch: SharedWatch) -> None:
        self.watch = watch
        self.version = -1
        self.shown: dict[str, Any] | None = None
        self.grid_version = -1
        self.shows_grid = False
        #: Number of the last event that was told as a notice; None before the first snapshot.
        self.noticed: int | None = None
        self.said_ended = False


class Page:
    """One page. Lives on the server's event loop; ``send(text)`` returns when the text is on its way."""

    def __init__(self, services: Services, send: Callable[[str], Awaitable[None]]) -> None:
        self._services = services
        self._send = send
        self._watched: dict[str, Watched] = {}
        self._wanted: list[str] = []
        self._interval = DEFAULT_INTERVAL
        self._grid = False
        self._paused = False
        self._list_version = -1
        #: Wanted clusters of which the page was told that they are not there.
        self._missing: set[str] = set()
        #: There is something to do or to tell; there is something to do.
        self._wake = asyncio.Event()
        self._ordered = asyncio.Event()
        self._orders: asyncio.Queue[dict[str, Any]] = asyncio.Queue(100)

    def order(self, text: str | bytes) -> str:
        """Take what the page sent; returns what is wrong with it, or "". It is carried out in turn."""
        try:
            order = json.loads(text)
            problem = _check(order)
        except ValueError:
            problem = "this is no JSON"
        if problem:
            return problem
        if self._orders.full():
            return "more orders than can be carried out"
        self._orders.put_nowait(order)
        self._ordered.set()
        self._wake.set()
        return ""

    async def run(self) -> None:
        """Serve the page until cancelled."""
        await self._send(json.dumps({"type": "hello", "version": VERSION, "shoal": __version__}))
        self._services.clusters.listen(self._wake.set)
        self._wake.set()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._ordered.clear()
                while not self._orders.empty():
                    await self._carry_out(self._orders.get_nowait())
                if self._paused:
                    continue
                await self._tell()
                # Orders are carried out at once, and a first snapshot is shown when it comes; news are told together.
                is_waiting = any(watched.watch.state == "connecting" for watched in self._watched.values())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ordered.wait(), HURRY if is_waiting else self._interval)
        finally:
            self._services.clusters.leave(self._wake.set)
            self._drop(list(self._watched))

    async def _carry_out(self, order: dict[str, Any]) -> None:
        match order["type"]:
            case "pause":
                self._paused = True
                self._services.clusters.leave(self._wake.set)
                self._drop(list(self._watched))
            case "resume":
                self._paused = False
                self._services.clusters.listen(self._wake.set)
                self._list_version = -1
                await self._take()
            case "watch":
                self._wanted = list(dict.fromkeys(order["clusters"]))
                self._missing.clear()
                self._interval = min(max(float(order.get("interval", self._interval)), MIN_INTERVAL), MAX_INTERVAL)
                self._grid = bool(order.get("grid", False))
                self._drop([name for name in self._watched if name not in self._wanted])
                if not self._paused:
                    await self._take()

    async def _take(self) -> None:
        """Watch what is wanted and is there."""
        for name in self._wanted:
            if name not in self._watched:
                connection = await asyncio.to_thread(registry.find, name)
                if connection is None:
                    if name not in self._missing and self._services.starts.find(name) is None:
                        self._missing.add(name)
                        await self._say_ended(name, "There is no such cluster (any more).")
                    continue
                watches = await self._services.watches()
                watched = self._watched[name] = Watched(watches.take(connection))
                watched.watch.listeners.add(self._wake.set)
        for watched in self._watched.values():
            if self._grid and not watched.shows_grid:
                watched.watch.grid.take()
                watched.watch.grid.listeners.add(self._wake.set)
            elif not self._grid and watched.shows_grid:
                self._leave_grid(watched)
            watched.shows_grid = self._grid

    def _drop(self, names: list[str]) -> None:
        for name in names:
            watched = self._watched.pop(name)
            watched.watch.listeners.discard(self._wake.set)
            if watched.shows_grid:
                self._leave_grid(watched)
            watches = self._services.open_watches
            if watches is not None:
                watches.give_back(watched.watch)

    def _leave_grid(self, watched: Watched) -> None:
        watched.watch.grid.listeners.discard(self._wake.set)
        watched.watch.grid.give_back()

    async def _tell(self) -> None:
        """Tell the page what has changed since last time."""
        clusters = self._services.clusters
        if clusters.message and clusters.version != self._list_version:
            self._list_version = clusters.version
            await self._send(clusters.message)
            await self._take()  # what was being started may be there now
        for name, watched in list(self._watched.items()):
            watch = watched.watch
            if watch.version != watched.version and watch.snapshot is not None:
                text, version, shown = watch.change_since(watched.version, watched.shown), watch.version, watch.snapshot
                watched.version, watched.shown = version, shown
                await self._send(text)
                await self._send_notices(name, watched, shown)
            if watched.shows_grid and watch.grid.message and watch.grid.version != watched.grid_version:
                watched.grid_version = watch.grid.version
                await self._send(watch.grid.message)
            if watch.state == "ended" and not watched.said_ended:
                watched.said_ended = True
                await self._say_ended(name, watch.message)

    async def _send_notices(self, name: str, watched: Watched, snapshot: dict[str, Any]) -> None:
        events = snapshot["events"]
        for event in events:
            new = event["number"] > (watched.noticed or 0)
            fresh = watched.noticed is not None or event["time"] > snapshot["time"] - NOTICE_AGE
            if event["kind"] == "notice" and new and fresh:
                notice = {"type": "notice", "cluster": name, "level": "warning", "message": event["text"]}
                await self._send(json.dumps(notice))
        watched.noticed = events[-1]["number"] if events else 0

    async def _say_ended(self, name: str, message: str) -> None:
        await self._send(json.dumps({"type": "ended", "cluster": name, "message": message}))


class LiveHandler(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """``WS shoal/api/v1/live``; see the module's description. Who may read the clusters may watch them."""

    auth_resource = AUTH_RESOURCE

    def initialize(self, services: Services) -> None:
        """Take what the handlers share."""
        self._services = services
        self._task: asyncio.Task[None] | None = None

    @ws_authenticated
    @may("read")
    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Upgrade the connection."""
        await super().get(*args, **kwargs)

    def open(self, *args: Any, **kwargs: Any) -> None:
        """Begin to tell."""
        super().open(*args, **kwargs)
        self._page = Page(self._services, self._write)
        self._task = asyncio.create_task(self._run(), name="shoal-page")
        self._services.pages.add(self._task)

    def on_message(self, message: str | bytes) -> None:
        """Take an order; a page that talks nonsense is told so and hung up on."""
        problem = self._page.order(message) if len(message) <= MAX_MESSAGE else "a message that long"
        if problem:
            self.close(1008, f"Not understood: {problem}."[:120])

    def on_close(self) -> None:
        """The page is gone."""
        if self.ping_callback is not None:
            self.ping_callback.stop()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._page.run()
        except WebSocketClosedError:
            pass  # the page has gone while it was told something
        except Exception:  # boundary: one page's trouble is no other's
            self.log.error("shoal: serving a page failed", exc_info=True)
            self.close(1011, "The server extension of shoal has failed: see the server's log.")
        finally:
            self.close()
            if self._task is not None:
                self._services.pages.discard(self._task)

    async def _write(self, text: str) -> None:
        await self.write_message(text)


def _check(order: Any) -> str:
    """Say what is wrong with an order, or ""."""
    if not isinstance(order, dict) or order.get("type") not in ("watch", "pause", "resume"):
        return "`type` is one of `watch`, `pause` and `resume`"
    if order["type"] == "watch":
        names, interval = order.get("clusters"), order.get("interval", DEFAULT_INTERVAL)
        if not isinstance(names, list) or not all(isinstance(name, str) and _ID.fullmatch(name) for name in names):
            return "`clusters` is a list of ids"
        if len(names) > MAX_WATCHED:
            return f"{MAX_WATCHED} clusters can be watched at most"
        if isinstance(interval, bool) or not isinstance(interval, int | float) or not interval > 0:
            return "`interval` is a number of seconds"
    return ""

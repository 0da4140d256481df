"""A replica's web side: connections that it was given, and requests that are forwarded to it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from shoal_ml.serve.connection import Server
from shoal_ml.serve.forwarding import Forwarding
from shoal_ml.serve.front import Front
from shoal_ml.serve.handover import Slot, Taker
from shoal_ml.serve.hub import get_hub
from shoal_ml.serve.options import HTTPOptions
from shoal_ml.serve.servable import Meta, Servable
from shoal_ml.serve.tables import Route, key_of
from shoal_ml.serve.web_servable import WebServable

#: Pieces of a streamed response that may wait for whoever forwards it.
MAX_AHEAD = 16
#: Seconds after which a streamed response is given up that nobody fetches.
UNCLAIMED = 30.0


class ForwardedRequest(NamedTuple):
    """An HTTP request that another process has read."""

    method: str
    path: str
    raw_path: bytes
    root_path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str


class ForwardedResponse(NamedTuple):
    """What goes back: all of it, or its beginning and a number to fetch the rest by."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    rest: int


class WebReplica:
    """See the module's description."""

    def __init__(self, servable: Servable, target: Any, options: HTTPOptions) -> None:
        self._web = WebServable(servable, target)
        self._servable = servable
        self._options = options
        self._rests: dict[int, _Exchange] = {}
        self._numbers = itertools.count(1)
        self._server: Server | None = None
        self._taker: Taker | None = None
        self._opening: set[asyncio.Task[Any]] = set()
        self._draining = False

    async def listen(self) -> str:
        """Take over connections; returns where. Not with TLS, whose state is no descriptor."""
        if self._options.ssl_certfile:
            return ""
        hub = get_hub()
        router = hub.router(key_of(self._servable.application, self._servable.deployment))
        front = Front(self._options, Forwarding(self._options), self._web, router)
        loop, known = asyncio.get_running_loop(), asyncio.Event()

        def routes_changed(routes: Sequence[Route]) -> None:  # on the hub's thread
            front.update(routes)
            loop.call_soon_threadsafe(known.set)

        hub.watch_routes(routes_changed)
        await known.wait()
        self._server = Server(front, self._options)
        self._taker = Taker(self._take)
        return self._taker.path

    def _take(self, sock: socket.socket, slot: Slot) -> None:
        server = self._server
        assert server is not None
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.connect_accepted_socket(lambda: server.connection(slot), sock))
        self._opening.add(opening)
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if self._draining and not opening.cancelled() and opening.exception() is None:
            opening.result()[1].hand_back()  # it was under way here when we asked for no more

    async def answer(self, meta: Meta, request: ForwardedRequest) -> ForwardedResponse:
        """Answer a request that another process has read."""
        exchange = _Exchange(meta, request)
        exchange.task = asyncio.create_task(exchange.run(self._web))
        try:
            await exchange.wait_for_head()
        except asyncio.CancelledError:
            exchange.task.cancel()
            raise
        rest = 0
        if not exchange.complete:
            rest = next(self._numbers)
            self._rests[rest] = exchange
            asyncio.get_running_loop().call_later(UNCLAIMED, self._give_up, rest)
        return ForwardedResponse(exchange.status, exchange.headers, exchange.first, rest)

    def _give_up(self, rest: int) -> None:
        exchange = self._rests.pop(rest, None)
        if exchange is not None and exchange.task is not None:
            exchange.task.cancel()

    async def rest(self, rest: int) -> AsyncIterator[bytes]:
        """Give the rest of a response, piece by piece."""
        exchange = self._rests.pop(rest)
        assert exchange.task is not None
        try:
            while (chunk := await exchange.chunks.get()) is not None:
                yield chunk
            await exchange.task
        finally:
            exchange.task.cancel()

    async def drain(self) -> None:
        """Hand connections back as they become idle; returns when all have gone, their last bytes too."""
        server = self._server
        if server is None:
            return
        self._draining = True
        if self._taker is not None:
            self._taker.close()
            self._taker = None
        while self._opening:
            await asyncio.wait(self._opening)
        for connection in server.connections():
            connection.hand_back()
        for websocket in server.websockets():
            websocket.shutdown()
        await server.until_empty()

    def close(self) -> None:
        """Take no more connections."""
        if self._taker is not None:
            self._taker.close()
            self._taker = None


class _Exchange:
    """A forwarded request on its way through an ASGI application."""

    def __init__(self, meta: Meta, request: ForwardedRequest) -> None:
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "path": request.path,
            "raw_path": request.raw_path,
            "root_path": request.root_path,
            "query_string": request.query,
            "headers": list(request.headers),
            "client": request.client,
            "server": request.server,
            "scheme": request.scheme,
            "state": {"request_id": meta[0], "model_id": meta[2]},
        }
        self._body: bytes | None = request.body
        self.status = 0
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.first = b""
        #: Whether ``first`` is all of the body.
        self.complete = False
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_AHEAD)
        self.task: asyncio.Task[None] | None = None
        self._head = asyncio.Event()

    async def run(self, app: WebServable) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        finally:
            self._head.set()

    async def wait_for_head(self) -> None:
        """Wait for the first of the body, or for the end; raises what the application has."""
        await self._head.wait()
        assert self.task is not None
        if not self.status or (self.task.done() and not self.complete and self.chunks.empty()):
            await self.task
            raise RuntimeError("The application returned without a response.")

    async def _receive(self) -> dict[str, Any]:
        if self._body is None:
            await asyncio.get_running_loop().create_future()  # a client that leaves cancels all this
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = tuple((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
            return
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        if not self._head.is_set():
            if more and not body:
                return
            self.first, self.complete = body, not more
            self._head.set()
            return
        if body:
            await self.chunks.put(body)
        if not more:
            await self.chunks.put(None)

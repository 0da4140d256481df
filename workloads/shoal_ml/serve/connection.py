"""One HTTP connection: uvicorn's protocol, with the limits that a server needs that anybody can reach."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from shoal_ml.serve.handover import BEGUN, IDLE, STARTED, Slot
from shoal_ml.serve.options import HTTPOptions

#: What is said with a status that a connection is refused with.
REASONS = {
    400: "This is no HTTP request.",
    408: "The request did not come in time.",
    414: "The address is too long.",
    431: "The headers are too large.",
}
#: Bytes of a request's address at most.
MAX_URL = 8 << 10


class Server:
    """What the connections of one process have in common."""

    def __init__(self, app: Any, options: HTTPOptions) -> None:
        self.options = options
        self.config = Config(
            app,
            http="httptools",
            ws="auto",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            root_path=options.root_path,
            timeout_keep_alive=int(options.keep_alive_s) or 1,
            ws_max_size=options.max_body_bytes,
            server_header=False,
            date_header=False,
        )
        self.config.load()
        self.state = ServerState()
        self._empty = asyncio.Event()

    def connection(self, slot: Slot | None = None) -> Connection:
        """Return the protocol for a new connection."""
        return Connection(self, slot)

    def connections(self) -> list[Connection]:
        """Return those that are open and speak HTTP."""
        return [connection for connection in self.state.connections if isinstance(connection, Connection)]

    def left(self) -> None:
        """A connection has gone."""
        if not self.state.connections:
            self._empty.set()

    async def until_empty(self) -> None:
        """Wait until no connection is open."""
        while self.state.connections:
            self._empty.clear()
            await self._empty.wait()

    def websockets(self) -> list[Any]:
        """Return the connections that have become websockets."""
        return [connection for connection in self.state.connections if not isinstance(connection, Connection)]


class Connection(HttpToolsProtocol):
    """See the module's description. What it does is noted in its *slot*, for the ingress that gave it away."""

    def __init__(self, server: Server, slot: Slot | None) -> None:
        super().__init__(server.config, server.state, {}, asyncio.get_running_loop())
        self._server = server
        self._limits = server.options
        self._slot = slot
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._refusal = 400
        self._draining = False
        self._in_message = False
        #: The task that answers the current request, and whether the client has gone.
        self.task: asyncio.Task[Any] | None = None
        self.is_lost = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm(self._limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._disarm()
        if self.task is not None:
            self.task.cancel()
        super().connection_lost(exc)
        if self._slot is not None:
            self._slot.closed()
        self._server.left()

    def on_message_begin(self) -> None:
        self._note(STARTED)
        self._in_message = True
        super().on_message_begin()
        self.scope["state"]["connection"] = self
        self._head_bytes = 0
        self._arm(self._limits.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL:
            self._refuse(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.max_header_bytes or len(self.headers) >= self._limits.max_headers:
            self._refuse(431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._arm(self._limits.body_timeout_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._arm(self._limits.body_timeout_s)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._disarm()
        self._in_message = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self.parser is None:
            return  # it has been refused, and more comes
        super().data_received(data)
        if self._in_message and self._head_bytes == 0 and len(data) > self._limits.max_header_bytes:
            self._refusal = 431  # one endless header, of which the parser has told nothing yet
            self.send_400_response("")

    def begun(self) -> None:
        """The response begins."""
        self._note(BEGUN)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_message or self.pipeline:
            return
        self._note(IDLE)
        if self._draining:
            self.hand_back()

    def hand_back(self) -> None:
        """Give the connection back to the ingress, now or after the response that is under way."""
        self._draining = True
        if self._in_message or (self.cycle is not None and not self.cycle.response_complete):
            if self._slot is None:
                self.shutdown()
            return
        if self._slot is not None and not self.transport.is_closing():
            self.transport.pause_reading()
            self._slot.returned = True
        self._unset_keepalive_if_required()
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse the request, and end the connection."""
        status = self._refusal
        self._disarm()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(refusal(status, REASONS[status]))
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        self._note(BEGUN)
        super().handle_websocket_upgrade()
        slot, server = self._slot, self._server
        protocol: Any = self.transport.get_protocol()
        lost = protocol.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            lost(exc)
            if slot is not None:
                slot.closed()
            server.left()

        protocol.connection_lost = connection_lost

    def _refuse(self, status: int) -> None:
        self._refusal = status
        raise ValueError(REASONS[status])  # the parser stops, and `data_received` answers

    def _note(self, state: int) -> None:
        if self._slot is not None:
            self._slot.note(state)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self.flow is not None and self.flow.read_paused:
            self._arm(self._limits.body_timeout_s)  # we are the slow ones
            return
        if self.task is not None:
            self.task.cancel()
            self.is_lost = True
        self._refusal = 408
        self.send_400_response("")


def refusal(status: int, text: str, *headers: str) -> bytes:
    """Return a whole response, after which the connection ends."""
    body = json.dumps({"error": text, "status": status}).encode()
    lines = ["content-type: application/json", f"content-length: {len(body)}", "connection: close", *headers]
    return STATUS_LINE[status] + "\r\n".join([*lines, "", ""]).encode() + body
